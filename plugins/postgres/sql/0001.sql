-- What every schema of imgate has. $schema and $sessions stand for the schema's
-- name and for how the writers' sessions are called, up to the fence.

-- The rows of tables that have no relation of their own.
CREATE TABLE $schema.core_rows (
    tab text COLLATE "C" NOT NULL,
    key0 bytea NOT NULL,
    value0 bytea NOT NULL,
    PRIMARY KEY (tab, key0)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_limit = 2000, vacuum_truncate = off);

-- Who holds the lease. It is apart from the fence, so that renewing it waits for
-- no write.
CREATE TABLE $schema.core_lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    node text NOT NULL DEFAULT '',
    process text NOT NULL DEFAULT '',
    fence bigint NOT NULL DEFAULT 0,
    ends timestamptz,
    released boolean NOT NULL DEFAULT false,
    next text NOT NULL DEFAULT '',
    reserved timestamptz,
    lasts bigint NOT NULL DEFAULT 0 -- microseconds that ends, or reserved, was set ahead
) WITH (fillfactor = 50);
INSERT INTO $schema.core_lease DEFAULT VALUES;

-- Under which fence, and through which of its sessions, may be written. Each
-- write locks this row and leaves it as it is: a row that was rewritten a
-- thousand times a second would be slow to find while somebody's long query
-- keeps the old versions alive.
CREATE TABLE $schema.core_fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    fence bigint NOT NULL DEFAULT 0,
    writer bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO $schema.core_fence DEFAULT VALUES;

-- Which nodes there are, and what they say of themselves.
CREATE TABLE $schema.core_nodes (
    node text COLLATE "C" PRIMARY KEY,
    note bytea NOT NULL,
    seen timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Which relations have columns that older rows still lack, and up to which key
-- they have been filled.
CREATE TABLE $schema.core_fill (
    relation text PRIMARY KEY,
    after bytea NOT NULL DEFAULT ''
);

-- retire ends the sessions that write under an older fence than f: one that is
-- frozen in the middle of a transaction would keep its locks for ever. Other
-- roles may call their sessions what they like, and can't be told to end.
CREATE FUNCTION $schema.retire(f bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pg_has_role(usesysid, 'USAGE') AND pid <> pg_backend_pid()
        AND CASE WHEN application_name ~ '^$sessions[0-9]{1,18}$'
            THEN substr(application_name, length('$sessions') + 1)::bigint < f
            ELSE false END;
END $$;

-- durable makes what is committed be on disk before it is acknowledged, should
-- the server be set otherwise.
CREATE FUNCTION $schema.durable(here_only boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', here_only);
    END IF;
END $$;

-- left_of is how many microseconds are left of something that was to last so
-- many. What ends later than in twice its time was set before the server's clock
-- was put back, and has ended: else a dead node would have the lease for as long.
CREATE FUNCTION $schema.left_of(ends timestamptz, lasts bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    remaining bigint := (extract(epoch FROM ends - clock_timestamp()) * 1000000)::bigint;
BEGIN
    RETURN CASE WHEN remaining > 2 * lasts THEN 0 ELSE remaining END;
END $$;

-- acquire takes the lease for ttl microseconds and returns the new fence; NULL:
-- somebody else holds it.
CREATE FUNCTION $schema.acquire(who text, its_process text, ttl bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held $schema.core_lease%ROWTYPE;
    number bigint;
BEGIN
    PERFORM $schema.durable(true);
    -- Somebody may have deleted the rows by hand.
    INSERT INTO $schema.core_lease DEFAULT VALUES ON CONFLICT DO NOTHING;
    INSERT INTO $schema.core_fence DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT held FROM $schema.core_lease WHERE one FOR UPDATE;
    IF NOT held.released AND $schema.left_of(held.ends, held.lasts) > 0 AND held.node <> who
        OR $schema.left_of(held.reserved, held.lasts) > 0 AND held.next <> who THEN
        RETURN NULL;
    END IF;
    SELECT greatest(held.fence, fence) + 1 INTO STRICT number FROM $schema.core_fence WHERE one;
    PERFORM $schema.retire(number);
    UPDATE $schema.core_fence SET fence = number, writer = 0 WHERE one;
    UPDATE $schema.core_lease SET node = who, process = its_process, fence = number, lasts = ttl,
        ends = clock_timestamp() + ttl * interval '1 microsecond', released = false, next = '', reserved = NULL
    WHERE one;
    RETURN number;
END $$;

-- begin_writing makes this session the only one that may write under the fence,
-- and returns its number; NULL: the process doesn't hold the newest lease under
-- it. (A replica that was promoted and lacks the newest lease gives its fence to
-- somebody else.) Nothing of an earlier session is written from now on, also not
-- what it was sent already.
CREATE FUNCTION $schema.begin_writing(f bigint, its_process text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM $schema.durable(false);
    PERFORM FROM $schema.core_lease WHERE one AND fence = f AND process = its_process;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM $schema.retire(f + 1);
    UPDATE $schema.core_fence SET writer = writer + 1 WHERE one AND fence = f RETURNING writer INTO number;
    RETURN number;
END $$;

-- admit begins a write: it fails unless the fence is that of the newest lease
-- and the session the newest that writes under it. No other write, and no newer
-- lease, gets between it and the end of the transaction.
CREATE FUNCTION $schema.admit(f bigint, number bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
BEGIN
    PERFORM FROM $schema.core_fence WHERE one AND fence = f AND writer = number FOR NO KEY UPDATE;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT fence INTO newest FROM $schema.core_fence WHERE one;
    IF newest IS DISTINCT FROM f THEN
        RAISE EXCEPTION 'the fence is %, that of the newest lease %', f, newest USING ERRCODE = 'IMG01';
    END IF;
    RAISE EXCEPTION 'another session writes under the fence %', f USING ERRCODE = 'IMG02';
END $$;

-- attend notes what a node says, forgets who hasn't said anything for kept
-- microseconds, or said it before the server's clock was put back, and returns all
-- others.
CREATE FUNCTION $schema.attend(who text, says bytea, kept bigint)
RETURNS TABLE (a_node text, a_note bytea, ago bigint) LANGUAGE plpgsql AS $$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO $schema.core_nodes AS n (node, note, seen) VALUES (who, says, now)
    ON CONFLICT (node) DO UPDATE SET note = excluded.note, seen = excluded.seen;
    DELETE FROM $schema.core_nodes AS n WHERE n.node IN (
        SELECT o.node FROM $schema.core_nodes AS o
        WHERE o.seen < now - kept * interval '1 microsecond' OR o.seen > now + interval '1 second' FOR UPDATE SKIP LOCKED);
    RETURN QUERY SELECT n.node, n.note, greatest(0, (extract(epoch FROM now - n.seen) * 1000000)::bigint)
    FROM $schema.core_nodes AS n
    WHERE n.seen >= now - kept * interval '1 microsecond' ORDER BY n.node;
END $$;
