package certificates

import (
	"crypto/tls"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Store has the certificate of a server.
type Store struct {
	keeper  *keeper
	clients tls.ClientAuthType
	current atomic.Pointer[serving]
}

// serving is the configuration that belongs to what files hold. Connections keep
// theirs for as long as they last: so they share it.
type serving struct {
	contents *contents
	config   *tls.Config
}

// Open reads a server's files. clients says whether a client has to show a
// certificate. An error is that of Files.Validate.
func Open(f Files, clients tls.ClientAuthType, log *slog.Logger) (*Store, error) {
	if err := f.Validate("", clients); err != nil {
		return nil, err
	}
	k, err := newKeeper(f.inner(), log, time.Now())
	if err != nil {
		return nil, err
	}
	return &Store{keeper: k, clients: clients}, nil
}

// Config is for the server's listeners: TLS 1.2 and newer. Each handshake gets
// what the files hold then, or what they held when they could last be used.
func (s *Store) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.config(time.Now()), nil },
	}
}

func (s *Store) config(now time.Time) *tls.Config {
	c := s.keeper.look(now)
	if current := s.current.Load(); current != nil && current.contents == c {
		return current.config
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: c.certificates(),
		ClientCAs:    c.authorities,
		ClientAuth:   s.clients,
	}
	s.current.Store(&serving{c, config}) // who is late is put right by the next
	return config
}

// Dialer has the certificate of a client, and those that it trusts.
type Dialer struct{ keeper *keeper }

// OpenDialer reads a client's files. An error is that of DialFiles.Validate.
func OpenDialer(f DialFiles, log *slog.Logger) (*Dialer, error) {
	if err := f.Validate(""); err != nil {
		return nil, err
	}
	k, err := newKeeper(f.inner(), log, time.Now())
	if err != nil {
		return nil, err
	}
	return &Dialer{k}, nil
}

// Config is for a connection to a server whose certificate must have this name:
// TLS 1.2 and newer. What the files hold counts when it is called; of one that is
// kept, only the certificate that we show is exchanged.
func (d *Dialer) Config(serverName string) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: serverName,
		RootCAs:    d.keeper.look(time.Now()).authorities,
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if certificate := d.keeper.look(time.Now()).certificate; certificate != nil {
			return certificate, nil
		}
		return &tls.Certificate{}, nil // none
	}
	return config
}

// lookEvery is how often at most it is looked whether files have changed.
const lookEvery = time.Second

// keeper keeps what was read of files, and reads those that change.
type keeper struct {
	files   files
	log     *slog.Logger
	current atomic.Pointer[contents]

	mu     sync.Mutex
	looked time.Time
	seen   []fs.FileInfo // of the paths when they were last read; nil: there was no such file
	told   bool          // that the certificate has expired
}

func newKeeper(f files, log *slog.Logger, now time.Time) (*keeper, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &keeper{files: f, log: log, looked: now, seen: sight(f.paths())}
	c, err := f.read()
	if err != nil {
		return nil, err
	}
	k.take(c, now)
	return k, nil
}

// look returns what the files hold. A broken file is told once, and what was
// there before stays: whoever replaces two files, one after the other, has them
// not fit each other for a moment.
func (k *keeper) look(now time.Time) *contents {
	if !k.mu.TryLock() {
		return k.current.Load() // somebody else looks
	}
	defer k.mu.Unlock()
	if now.Sub(k.looked) < lookEvery {
		return k.current.Load()
	}
	k.looked = now
	if seen := sight(k.files.paths()); !same(seen, k.seen) {
		k.seen = seen
		k.read(now)
	}
	k.warnOfExpiry(now)
	return k.current.Load()
}

// warnOfExpiry tells once of a certificate that it has expired, be it while it is
// in use.
func (k *keeper) warnOfExpiry(now time.Time) {
	c := k.current.Load().certificate
	if c == nil || k.told || !now.After(c.Leaf.NotAfter) {
		return
	}
	k.told = true
	k.log.Warn("certificate has expired", "file", k.files.certificate, "not_after", c.Leaf.NotAfter)
}

func (k *keeper) read(now time.Time) {
	c, err := k.files.read()
	if err != nil {
		k.log.Warn("certificate files can't be used; those from before stay", "error", err)
		return
	}
	k.take(c, now)
	k.log.Info("certificate files read anew", "files", k.files.paths())
}

// take begins to use what was read, and says what operators will want to know
// of it.
func (k *keeper) take(c *contents, now time.Time) {
	k.current.Store(c)
	k.told = false
	k.warnOfExpiry(now)
	if c.certificate == nil {
		return
	}
	if leaf := c.certificate.Leaf; now.Before(leaf.NotBefore) {
		k.log.Warn("certificate isn't valid yet", "file", k.files.certificate, "not_before", leaf.NotBefore)
	}
	// Not refused: what hands secrets to containers lets everybody in there read
	// them, by default.
	if info, err := os.Stat(k.files.key); err == nil && info.Mode().Perm()&0o007 != 0 {
		k.log.Warn("private key is open to everybody on this machine", "file", k.files.key, "mode", info.Mode().Perm().String())
	}
}

// sight is what can be seen of files without reading them.
func sight(paths []string) []fs.FileInfo {
	seen := make([]fs.FileInfo, len(paths))
	for i, path := range paths {
		if info, err := os.Stat(path); err == nil {
			seen[i] = info
		}
	}
	return seen
}

// same tells whether no file has been changed, or exchanged for another.
func same(a, b []fs.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && !(os.SameFile(a[i], b[i]) && a[i].Size() == b[i].Size() && a[i].ModTime().Equal(b[i].ModTime())) {
			return false
		}
	}
	return true
}
