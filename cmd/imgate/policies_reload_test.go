//go:build process

package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua"
)

// What is sent while policies change: 20,000 messages, 1,000 a second unless the
// machine is slower.
const (
	reloadSenders  = 20
	reloadStreams  = 10 // of each, one message after the other
	reloadEach     = 100
	reloadMessages = reloadSenders * reloadStreams * reloadEach
	reloadPause    = reloadSenders * reloadStreams * time.Second / 1000
)

// TestPolicyReload sends messages while good, bad and good policies are put into
// the directory in every way that operators and their tools know. Each message is
// answered and arrives once, decided by a good revision, and a whole one; what
// was wrong in between is said. Then the node is killed with a bad directory,
// starts with the last good revision, and takes the next good one.
func TestPolicyReload(t *testing.T) {
	r := newReloading(t)
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		r.sendPaced()
	}()
	t.Cleanup(func() { <-sending })
	rounds := 0
	for underWay := true; underWay; rounds++ {
		r.swap()
		select {
		case <-sending:
			underWay = false
		default:
		}
	}
	t.Logf("%d rounds of swaps, %d good revisions", rounds, len(r.good))
	r.checkArrived()
	r.checkRecords()
	if last := r.policyStatus(); !last.Current || r.good[last.Revision] != r.dir.last {
		t.Errorf("%+v is in force at the end, want set %s", last, r.dir.last)
	}
	if n := r.metric("imgate_policy_current"); n != 1 {
		t.Errorf("imgate_policy_current is %v", n)
	}
	r.restart()
	r.checkRecords()
	r.checkProbes()
}

// reloading is a server whose policies change.
type reloading struct {
	*server
	dir      *policyDir
	from, to []string
	box      *mailbox
	good     map[string]string // the number of the set, by revision
	senders  []*ua.Agent       // and the prober at the end
	probes   []string          // the number of the set that each must have been decided by
}

func newReloading(t *testing.T) *reloading {
	t.Helper()
	r := &reloading{
		server: newServer(t, ""), dir: newPolicyDir(t), good: map[string]string{}, box: newMailbox(),
		from: numbered("from", reloadSenders), to: numbered("to", reloadSenders),
	}
	r.reconfigure(func(text string) string {
		return strings.Replace(text, "{plugin: rego}", "{plugin: rego, dir: "+r.dir.link+"}", 1)
	})
	r.start()
	r.importWith(append(append(r.from, r.to...), "prober"), "10000.00")
	for _, user := range r.to {
		agent := dial(t, r.server, user, r.box.take)
		t.Cleanup(func() { agent.Close() })
		register(t, agent)
	}
	for _, user := range append(r.from, "prober") {
		agent := dial(t, r.server, user, nil)
		t.Cleanup(func() { agent.Close() })
		r.senders = append(r.senders, agent)
	}
	r.good[r.policyStatus().Revision] = r.dir.last
	return r
}

// swap puts a bad and a good set in place of the one before, in each way.
func (r *reloading) swap() {
	r.t.Helper()
	for i, way := range []way{bySymlink, byRename, inPlace, manyFiles} {
		before := r.policyStatus().Revision
		mistake := mistakes[i]
		r.dir.bad(mistake, way)
		r.eventually(mistake.says, func() bool {
			now := r.policyStatus()
			return now.Revision == before && !now.Current && strings.Contains(now.Trouble, mistake.says)
		})
		if out, _, status := r.try("policy", "status"); status != 1 || !strings.Contains(out, mistake.says) || !strings.Contains(out, before) {
			r.t.Errorf("policy status exits with %d, and says\n%s\nwant 1, revision %s and %q", status, out, before, mistake.says)
		}
		r.probe(r.good[before])
		r.dir.good(way)
		r.taken(before)
	}
}

// taken waits until the good set that is there decides, and no other one.
func (r *reloading) taken(before string) {
	r.t.Helper()
	var now policyStatus
	r.eventually("another revision than "+before, func() bool {
		now = r.policyStatus()
		return now.Current && now.Revision != before
	})
	r.good[now.Revision] = r.dir.last
	r.probe(r.dir.last)
}

// probe sends a message that a set must decide about.
func (r *reloading) probe(set string) {
	r.t.Helper()
	r.send(r.senders[reloadSenders], fmt.Sprint("prober to000 ", len(r.probes)))
	r.probes = append(r.probes, set)
}

// restart kills the node when its directory is broken.
func (r *reloading) restart() {
	r.t.Helper()
	last := r.policyStatus().Revision
	r.dir.bad(badRule, bySymlink)
	r.kill()
	r.start()
	now := r.policyStatus()
	if now.Revision != last || !now.StandingIn || now.Current {
		r.t.Errorf("after a restart with broken files: %+v, want revision %s to stand in", now, last)
	}
	if !strings.Contains(now.Trouble, badRule.says) {
		r.t.Errorf("the trouble is %q, want it to say %q", now.Trouble, badRule.says)
	}
	if status, text := r.readiness(); status != http.StatusOK || !strings.Contains(text, badRule.says) {
		r.t.Errorf("/readyz says %d %q", status, text)
	}
	if !strings.Contains(r.logged(), "the stored revision stands in") {
		r.t.Error("the log doesn't say that a stored revision stands in")
	}
	if n := r.metric("imgate_policy_current"); n != 0 {
		r.t.Errorf("imgate_policy_current is %v", n)
	}
	r.probe(r.good[last])
	r.dir.good(byRename)
	r.taken(last)
}

// policyStatus is what the admin API says of policies.
type policyStatus struct {
	Revision   string `json:"revision"`
	Current    bool   `json:"current"`
	Trouble    string `json:"trouble"`
	StandingIn bool   `json:"standing_in"`
}

func (s *server) policyStatus() (status policyStatus) {
	s.t.Helper()
	out, problems, _ := s.try("policy", "status", "--output", "json") // its exit status says what Current does
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		s.t.Fatalf("policy status: %v\n%s%s", err, out, problems)
	}
	return status
}

// sendPaced sends all messages, each when it is due and the one before it in its
// stream is answered.
func (r *reloading) sendPaced() {
	began := time.Now()
	var all sync.WaitGroup
	for sender := range r.from {
		for stream := range reloadStreams {
			all.Go(func() {
				for n := 0; n < reloadEach && r.t.Context().Err() == nil; n++ {
					time.Sleep(time.Until(began.Add(time.Duration(n) * reloadPause))) // the rate
					r.send(r.senders[sender], r.body(sender, stream, n))
				}
			})
		}
	}
	all.Wait()
	r.t.Logf("%d messages in %v", reloadMessages, time.Since(began).Round(time.Millisecond))
}

// body is the text of a message: its sender, its recipient, its number.
func (r *reloading) body(sender, stream, n int) string {
	return fmt.Sprintf("%s %s %d", r.from[sender], r.to[(sender+stream)%len(r.to)], n)
}

// send sends a message, which may neither be refused nor stay without an answer.
func (r *reloading) send(agent *ua.Agent, body string) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	to := message.Address{User: strings.Fields(body)[1], Host: "sip.example.com"}
	result, err := agent.Message(ctx, to, "text/plain", []byte(body), ua.Options{})
	switch {
	case r.t.Context().Err() != nil: // the test has ended before
	case err != nil:
		r.t.Errorf("%s isn't answered: %v", body, err)
	case !result.Taken():
		r.t.Errorf("%s is answered %d %s", body, result.Code, result.Reason)
	}
}

// checkArrived wants each message once, in order.
func (r *reloading) checkArrived() {
	r.t.Helper()
	accepted := map[string]bool{}
	for sender := range r.from {
		for stream := range reloadStreams {
			for n := range reloadEach {
				accepted[r.body(sender, stream, n)] = true
			}
		}
	}
	for n := range r.probes {
		accepted[fmt.Sprint("prober to000 ", n)] = true
	}
	r.eventually("all messages", func() bool { return r.box.distinct() == len(accepted) })
	if twice := r.box.check(r.t, accepted); twice > 0 {
		r.t.Errorf("%d messages arrived twice", twice)
	}
}

// decided is the record of a message.
type decided struct {
	ID, Revision string
	Labels       map[string]string
}

// records are those of all messages, or of one sender's.
func (r *reloading) records(flags ...string) (records []decided) {
	r.t.Helper()
	out := r.imgate(append([]string{"message", "list", "--limit", "0", "--output", "json"}, flags...)...)
	for line := range strings.Lines(out) {
		var record decided
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			r.t.Fatal(err)
		}
		records = append(records, record)
	}
	return records
}

// checkRecords wants each message decided by one good revision, all parts of it.
func (r *reloading) checkRecords() {
	r.t.Helper()
	records, wrong := r.records(), 0
	for _, record := range records {
		set, known := r.good[record.Revision]
		if known && record.Labels["set"] == set && record.Labels["parts"] == set {
			continue
		}
		if wrong++; wrong < 5 {
			r.t.Errorf("message %s was decided by revision %q, with labels %v; good are %v", record.ID, record.Revision, record.Labels, r.good)
		}
	}
	if want := reloadMessages + len(r.probes); len(records) != want || wrong > 0 {
		r.t.Errorf("%d records, %d of them wrong; want %d", len(records), wrong, want)
	}
}

// checkProbes wants each probe decided by what was in force when it was sent.
func (r *reloading) checkProbes() {
	r.t.Helper()
	var sets []string
	for _, record := range r.records("--from", "prober@sip.example.com") {
		sets = append(sets, record.Labels["set"])
	}
	if !slices.Equal(sets, r.probes) {
		r.t.Errorf("the probes were decided by sets %v, want %v", sets, r.probes)
	}
}
