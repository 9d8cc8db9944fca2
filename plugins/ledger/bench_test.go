package ledger

import (
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// nowhere is a disk for benchmarks: it takes everything and has nothing.
type nowhere struct{ *plugintest.Tables }

func (nowhere) Commit([]plugin.Change) plugin.Commitment { return landed{} }

func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		b.Run(algorithm, func(b *testing.B) {
			book := openTestBook(b, plugintest.NewTables(), time.Now())
			addTo(b, book, entry{AOR: "alice@a.example", Password: "secret"})
			d := plugin.Digest{
				Method: "MESSAGE", Username: "alice", Realm: "a.example", URI: "sip:bob@a.example", Algorithm: algorithm,
				Nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", QOP: "auth", NC: "00000001", CNonce: "0a4f113b",
			}
			secret := newHA1("alice", "a.example", "secret")
			d.Response = string(response(&d, secret.md5[:], md5Hex))
			if algorithm == "SHA-256" {
				d.Response = string(response(&d, secret.sha256[:], sha256Hex))
			}
			b.ReportAllocs()
			for b.Loop() {
				if book.verify(plugin.Credentials{Digest: &d}) == nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkAuthorizeSettle settles in batches, as the engine does.
func BenchmarkAuthorizeSettle(b *testing.B) {
	const batch = 32
	now := time.Now()
	book := openTestBook(b, nowhere{plugintest.NewTables()}, now)
	addTo(b, book, entry{AOR: "alice@a.example", Password: "secret", Balance: "2000000000"})
	t := tariff{price, "EUR"}
	var keys message.Generator
	alice, bob := message.Address{User: "alice", Host: "a.example"}, message.Address{User: "bob", Host: "a.example"}
	var records []plugin.Record
	b.ReportAllocs()
	for b.Loop() {
		r := plugin.Request{Key: keys.New(now), Payer: "alice@a.example", Units: 1, From: alice, Recipient: bob, HoldUntil: now.Add(time.Hour)}
		a, err := book.authorize(now, t, r)
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, plugin.Record{Key: r.Key, Charged: true, Payer: r.Payer, Units: 1, From: alice, Recipient: bob,
			Service: "default", Transport: "sip", Received: now, Settled: now, Reserved: a.Reserved})
		if len(records) < batch {
			continue
		}
		if _, err := book.settle(b.Context(), now, records); err != nil {
			b.Fatal(err)
		}
		records = records[:0]
	}
}

func BenchmarkOpen100k(b *testing.B) {
	tables := plugintest.NewTables()
	importMany(b, openNode(b, tables), 100_000)
	for b.Loop() {
		openTestBook(b, tables, time.Now())
	}
}
