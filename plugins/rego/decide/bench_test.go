package decide

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/regotest"
	"github.com/imgate/imgate/plugins/rego/source"
	"github.com/imgate/imgate/policies"
)

// open loads the policies built in.
func open(t testing.TB) *Policy {
	t.Helper()
	texts := map[string]string{}
	names, err := fs.Glob(policies.Files, "*.*")
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !source.Wanted(name) })
	for _, name := range names {
		text, err := fs.ReadFile(policies.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return mustLoad(t, texts)
}

// tariffs is a service that decides by its row and the message.
const tariffs = `package imgate.services.tariffs

plan.transports := ["smpp"]

plan.mime.smpp := ["text/plain", "message/cpim"]

plan.store := "72h"

plan.charging.mode := "event" if input.message.class != "composing"

plan.charging.account := input.match.attributes.customer

plan.labels.tariff := input.match.attributes.tariff

plan.processing := "reject" if input.message.size > 1600
`

// remembered is one whose plans depend on little.
const remembered = `package imgate.services.tariffs

plan.store := "72h"

plan.charging.mode := "event" if input.message.class != "composing"

plan.labels.tariff := input.match.attributes.tariff
`

// domainTable is a data file: of n rows four in five are exact domains, the
// others suffixes; besides them there are expressions.
func domainTable(n, expressions int) string {
	var table strings.Builder
	table.WriteString("domains:\n")
	attributes := func(i int) string {
		return fmt.Sprintf("{service: tariffs, attributes: {customer: c%d, tariff: t%d}}\n", i, i%7)
	}
	for i := range n {
		if i%5 == 4 {
			fmt.Fprintf(&table, "  '*.s%d.example.net': %s", i, attributes(i))
		} else {
			fmt.Fprintf(&table, "  d%d.example.com: %s", i, attributes(i))
		}
	}
	for i := range expressions {
		fmt.Fprintf(&table, "  '/[a-z]+[0-9]*\\.x%d\\.example\\.org/': {service: tariffs, priority: %d, attributes: {customer: x%d, tariff: x}}\n", i, -i, i)
	}
	return table.String()
}

// benchmarkDecide decides about recipients in all of the domains.
func benchmarkDecide(b *testing.B, p *Policy, domain func(i int) string) {
	ctx := context.WithoutCancel(b.Context())
	questions := make([]plugin.Question, 512)
	for i := range questions {
		questions[i] = regotest.Typical()
		questions[i].Recipient = regotest.Recipient("447700900000@" + domain(i))
	}
	b.ReportAllocs()
	i, began := 0, cpuTime(b)
	for b.Loop() {
		if _, err := p.Decide(ctx, questions[i%len(questions)], plugin.Given{}); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(i), "cpu-ns/op")
}

// benchmarkBusy decides on all processors at once, as a node does that has no
// time to spare: then nobody is woken for a hand-over to a worker.
func benchmarkBusy(b *testing.B, p *Policy) {
	ctx := context.WithoutCancel(b.Context())
	began := cpuTime(b)
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		q := regotest.Typical()
		q.Recipient = regotest.Recipient("447700900000@d0.example.com")
		for pb.Next() {
			if _, err := p.Decide(ctx, q, plugin.Given{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used, the garbage collector too: that is what
// is promised, and what other processes don't change.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkDecide is one decision with a table of domains. The promise is 35 µs
// CPU for an exact domain or a suffix, 60 µs with 500 expressions present.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		exact := func(i int) string { return fmt.Sprintf("d%d.example.com", i*19%n/5*5) }
		suffix := func(i int) string { return fmt.Sprintf("a.s%d.example.net", (i*19%n)/5*5+4) }
		for _, expressions := range []int{0, 500} {
			p := tableOnly(b, tariffs, n, expressions)
			name := fmt.Sprintf("domains=%d/expressions=%d", n, expressions)
			b.Run(name+"/exact", func(b *testing.B) { benchmarkDecide(b, p, exact) })
			if n > 1 {
				b.Run(name+"/suffix", func(b *testing.B) { benchmarkDecide(b, p, suffix) })
			}
			if expressions > 0 {
				b.Run(name+"/expression", func(b *testing.B) {
					benchmarkDecide(b, p, func(i int) string { return fmt.Sprintf("host7.x%d.example.org", i*19%expressions) })
				})
			}
			b.Run(name+"/miss", func(b *testing.B) { benchmarkMiss(b, p) })
		}
	}
	b.Run("domains=10000/expressions=0/busy", func(b *testing.B) { benchmarkBusy(b, tableOnly(b, tariffs, 10_000, 0)) })
	p := tableOnly(b, remembered, 10_000, 500)
	b.Run("domains=10000/expressions=500/remembered", func(b *testing.B) {
		benchmarkDecide(b, p, func(i int) string { return fmt.Sprintf("d%d.example.com", i*19%10_000/5*5) })
	})
	for name, domain := range map[string]string{"shipped": "sip.example.com", "shipped-sms": "sms.example.com"} {
		b.Run(name, func(b *testing.B) { benchmarkDecide(b, open(b), func(int) string { return domain }) })
	}
}

func tableOnly(t testing.TB, service string, n, expressions int) *Policy {
	return mustLoad(t, map[string]string{"tariffs": service, "domains.yaml": domainTable(n, expressions)})
}

func benchmarkMiss(b *testing.B, p *Policy) {
	ctx := context.WithoutCancel(b.Context())
	q := regotest.Typical()
	q.Recipient = regotest.Recipient("447700900000@nobody.example.org")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(ctx, q, plugin.Given{}); err == nil {
			b.Fatal("somebody took it")
		}
	}
}

// BenchmarkLoad10000 loads a table of 10,000 domains. The promise is a second.
func BenchmarkLoad10000(b *testing.B) {
	table := domainTable(10_000, 500)
	for b.Loop() {
		mustLoad(b, map[string]string{"tariffs": tariffs, "domains.yaml": table})
	}
}
