package otlp

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

func attribute(span *tracepb.Span, key string) string {
	for _, a := range span.Attributes {
		if a.Key == key {
			if n, ok := a.Value.Value.(*commonpb.AnyValue_IntValue); ok {
				return fmt.Sprint(n.IntValue)
			}
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func openTracer(t plugintest.T, url string, change func(*Config, *plugin.Env)) plugin.Observer {
	config := Plugin.NewConfig().(*Config)
	config.Endpoint = url
	env := plugin.Env{Node: "gw1", Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(config, &env)
	}
	if err := config.Validate(); err != nil {
		t.Fatalf("config: %v", err)
	}
	o, err := plugin.Open[plugin.Observer](t.Context(), Plugin, env, config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return o
}

// contract makes a harness around a collector, which is jammed by jam. A last message tells that all before it has come.
func contract(jam func(*collector)) func(plugintest.T) plugintest.ObserverHarness {
	return func(t plugintest.T) plugintest.ObserverHarness {
		c := newCollector(t)
		var o plugin.Observer
		return plugintest.ObserverHarness{
			Open: func(t plugintest.T) plugin.Observer { o = openTracer(t, c.url, nil); return o },
			Read: func(t plugintest.T) string {
				last := &message.Message{ID: message.ID{15: 1}}
				o.Step(&plugin.Step{Name: plugin.StepStored, Message: last, Began: began, Ended: began})
				c.waitFor(t, last.ID, "message")
				return fmt.Sprint(c.all())
			},
			Jam: func(plugintest.T) { jam(c) },
		}
	}
}

func TestContract(t *testing.T) { plugintest.Observer(t, contract(func(c *collector) { c.stall() })) }

func TestContractWithoutCollector(t *testing.T) {
	plugintest.Observer(t, contract(func(c *collector) { c.leave() }))
}

var began = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

var ids message.Generator

func newMessage() *message.Message {
	return &message.Message{
		ID: ids.New(began), PublicID: "public", Received: began, Transport: "sip",
		From: message.Address{User: "1001", Host: "a.example"}, Recipient: message.Address{User: "1002", Host: "b.example"},
		Body: []byte("a secret"),
	}
}

func step(m *message.Message, name plugin.StepName, from, to time.Duration) *plugin.Step {
	return &plugin.Step{Name: name, Message: m, Began: began.Add(from), Ended: began.Add(to)}
}

const ms = time.Millisecond

func tellSubmit(o plugin.Observer, m *message.Message) {
	o.Step(step(m, plugin.StepReceived, 0, 0))
	decided := step(m, plugin.StepDecided, 0, 1*ms)
	decided.Service = "on_net"
	o.Step(decided)
	o.Step(step(m, plugin.StepAuthorized, 1*ms, 2*ms))
	o.Step(step(m, plugin.StepStored, 2*ms, 4*ms))
}

func tellDelivery(o plugin.Observer, m *message.Message) {
	failed := step(m, plugin.StepAttempted, 5*ms, 9*ms)
	failed.Transport, failed.Peer, failed.Attempt, failed.Reason = "sip", "sip:1002@203.0.113.20:5060;transport=tcp", 1, message.NoAnswer
	o.Step(failed)
	waiting := step(m, plugin.StepWaiting, 9*ms, 9*ms)
	waiting.Reason = message.NoAnswer
	o.Step(waiting)
	taken := step(m, plugin.StepAttempted, 20*ms, 22*ms)
	taken.Transport, taken.Peer, taken.Attempt = "sip", "sip:1002@203.0.113.20:5060", 2
	o.Step(taken)
	o.Step(step(m, plugin.StepDelivered, 22*ms, 22*ms))
}

func closeIt(t *testing.T, o plugin.Observer) {
	t.Helper()
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// TestTraceOverRestart stores a message in one process and delivers it in
// another, which knows only what is on disk: it is one trace.
func TestTraceOverRestart(t *testing.T) {
	c, m := newCollector(t), newMessage()
	first := openTracer(t, c.url, nil)
	tellSubmit(first, m)
	closeIt(t, first)

	read := *m
	read.Body = nil
	second := openTracer(t, c.url, nil)
	tellDelivery(second, &read)
	closeIt(t, second)

	var got []string
	for _, span := range c.all() {
		if [16]byte(span.TraceId) != m.ID {
			t.Errorf("%s is in the trace %x, want %x", span.Name, span.TraceId, m.ID)
		}
		switch {
		case span.Name == "message" && (len(span.ParentSpanId) != 0 || [8]byte(span.SpanId) != [8]byte(m.ID[8:])):
			t.Errorf("the root is %x below %x", span.SpanId, span.ParentSpanId)
		case span.Name != "message" && [8]byte(span.ParentSpanId) != [8]byte(m.ID[8:]):
			t.Errorf("%s is below %x", span.Name, span.ParentSpanId)
		}
		took := time.Duration(span.EndTimeUnixNano - span.StartTimeUnixNano)
		got = append(got, fmt.Sprintf("%s %s %s", span.Name, took, span.Status.GetMessage()))
	}
	want := []string{
		"policy 1ms ", "authorize 1ms ", "store 2ms ", "message 4ms ",
		"attempt 4ms no-answer", "waiting 0s ", "attempt 2ms ", "delivery 22ms ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	expectUnique(t, c.all())
}

func expectUnique(t *testing.T, spans []*tracepb.Span) {
	t.Helper()
	seen := map[string]bool{}
	for _, span := range spans {
		if id := hex.EncodeToString(span.SpanId); seen[id] {
			t.Errorf("two spans have the ID %s", id)
		} else {
			seen[id] = true
		}
	}
}

func TestForeignTraceGoesOn(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	c, m := newCollector(t), newMessage()
	m.Trace = "00-" + trace + "-" + parent + "-01"
	o := openTracer(t, c.url, func(c *Config, _ *plugin.Env) { c.Sample = 0 }) // they have decided
	tellSubmit(o, m)
	tellDelivery(o, m)
	closeIt(t, o)
	if n := len(c.all()); n != 8 {
		t.Errorf("%d spans, want 8", n)
	}
	for _, span := range c.all() {
		if hex.EncodeToString(span.TraceId) != trace {
			t.Errorf("%s is in the trace %x", span.Name, span.TraceId)
		}
		remote := span.Flags&uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) != 0
		if isRoot := span.Name == "message"; remote != isRoot || isRoot != (hex.EncodeToString(span.ParentSpanId) == parent) {
			t.Errorf("%s is below %x, remote %t", span.Name, span.ParentSpanId, remote)
		}
	}
}

func TestWhoDoesNotSampleIsRespected(t *testing.T) {
	c, m := newCollector(t), newMessage()
	m.Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	o := openTracer(t, c.url, nil)
	tellSubmit(o, m)
	tellDelivery(o, m)
	closeIt(t, o)
	if n := len(c.all()); n != 0 {
		t.Errorf("%d spans of a trace that isn't sampled", n)
	}
}

func TestSampler(t *testing.T) {
	for _, part := range []float64{0, 0.1, 0.5, 1} {
		const n = 20_000
		s, wanted := newSampler(part), 0
		for range n {
			if s.wants(originOf(&message.Message{ID: ids.New(began)})) {
				wanted++
			}
		}
		// Five standard deviations: one run in a million fails by chance.
		if off := math.Abs(float64(wanted) - part*n); off > 5*math.Sqrt(n*part*(1-part)) {
			t.Errorf("of %d messages %d are traced, %g are wanted", n, wanted, part*n)
		}
	}
}

func TestTraceparent(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for s, want := range map[string]struct{ ok, sampled bool }{
		good:                                        {true, true},
		good[:54] + "0":                             {true, false},
		good[:53] + "ff":                            {true, true},
		"cc" + good[2:] + "-what-comes-later":       {true, true},
		"cc" + good[2:] + "x":                       {},
		good + "-more":                              {},
		"ff" + good[2:]:                             {},
		strings.ToUpper(good):                       {},
		strings.Replace(good, "f", "g", 1):          {},
		strings.Replace(good, "-", "_", 1):          {},
		"00-" + strings.Repeat("0", 32) + good[35:]: {},
		good[:36] + "0000000000000000-01":           {},
		good[:54]:                                   {},
		"":                                          {},
	} {
		_, _, sampled, ok := parseTraceparent(s)
		if ok != want.ok || sampled != want.sampled {
			t.Errorf("%q: ok %t, sampled %t; want %+v", s, ok, sampled, want)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Fuzz(func(t *testing.T, s string) {
		trace, parent, _, ok := parseTraceparent(s)
		if ok && !strings.HasPrefix(s[2:], fmt.Sprintf("-%x-%x-", trace, parent)) {
			t.Errorf("%q is read as %x, %x", s, trace, parent)
		}
	})
}

// TestOtherEnds: each message has one root, whatever becomes of it.
func TestOtherEnds(t *testing.T) {
	for name, tell := range map[string]func(plugin.Observer, *message.Message){
		"refused": func(o plugin.Observer, m *message.Message) {
			refused := step(m, plugin.StepRefused, 0, ms)
			refused.Reason = message.Forbidden
			o.Step(refused)
		},
		"discarded": func(o plugin.Observer, m *message.Message) { o.Step(step(m, plugin.StepDiscarded, 0, ms)) },
		"quarantined": func(o plugin.Observer, m *message.Message) {
			tellSubmit(o, m)
			o.Step(step(m, plugin.StepQuarantined, 5*ms, 5*ms))
			o.Step(step(m, plugin.StepRequeued, 6*ms, 6*ms))
			tellDelivery(o, m)
		},
		"a typing notice": func(o plugin.Observer, m *message.Message) {
			m.Class = message.Composing
			o.Step(step(m, plugin.StepDecided, 0, ms))
			tellDelivery(o, m)
		},
		"unknown steps": func(o plugin.Observer, m *message.Message) {
			o.Step(step(m, "cancelled", 0, ms))
			tellSubmit(o, m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, m := newCollector(t), newMessage()
			o := openTracer(t, c.url, nil)
			tell(o, m)
			closeIt(t, o)
			roots := 0
			for _, span := range c.all() {
				if span.Name == "message" {
					roots++
					failed := span.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR
					if failed != (name == "refused") {
						t.Errorf("failed: %t", failed)
					}
				}
				if span.StartTimeUnixNano > span.EndTimeUnixNano {
					t.Errorf("%s ends before it begins", span.Name)
				}
			}
			if roots != 1 {
				t.Errorf("%d roots", roots)
			}
		})
	}
}

func TestWhatIsExported(t *testing.T) {
	for _, whole := range []bool{false, true} {
		c, m := newCollector(t), newMessage()
		o := openTracer(t, c.url, func(config *Config, _ *plugin.Env) {
			config.Addresses = whole
			config.Headers = map[string]string{"x-api-key": "k"}
		})
		tellSubmit(o, m)
		tellDelivery(o, m)
		closeIt(t, o)
		all := fmt.Sprint(c.all())
		if strings.Contains(all, "secret") {
			t.Error("what a person wrote is exported")
		}
		for _, user := range []string{"1001@a.example", "1002@b.example", "1002@203.0.113.20"} {
			if strings.Contains(all, user) != whole {
				t.Errorf("addresses %t: %s is there: %t", whole, user, !whole)
			}
		}
		for _, word := range []string{"a.example", "b.example", "203.0.113.20:5060", "on_net", "no-answer"} {
			if !strings.Contains(all, word) {
				t.Errorf("%s isn't there", word)
			}
		}
		if c.header.Get("X-Api-Key") != "k" {
			t.Errorf("header %v", c.header)
		}
		if got := fmt.Sprint(c.resource); !strings.Contains(got, "imgate") || !strings.Contains(got, "gw1") {
			t.Errorf("resource %s", got)
		}
	}
}

func TestPeer(t *testing.T) {
	for peer, want := range map[string]string{
		"sip:1002@203.0.113.20:5060;transport=tcp": "sip:203.0.113.20:5060;transport=tcp",
		"sips:a%40b@[2001:db8::1]:5061":            "sips:[2001:db8::1]:5061",
		"203.0.113.20:5060":                        "203.0.113.20:5060",
		"1002@host":                                "host",
		"system_id":                                "system_id",
		"":                                         "",
	} {
		b := builder{step: &plugin.Step{Peer: peer}}
		if got := b.peer(); got != want {
			t.Errorf("%q: %q, want %q", peer, got, want)
		}
	}
}

func TestOddSteps(t *testing.T) {
	c := newCollector(t)
	o := openTracer(t, c.url, func(config *Config, _ *plugin.Env) { config.Addresses = true })
	m := newMessage()
	m.From.User, m.PublicID, m.Trace = "\xff\xfe", strings.Repeat("é\x80", 1000), "\x00"
	tellSubmit(o, m)
	closeIt(t, o)
	if n := len(c.all()); n != 4 {
		t.Errorf("%d spans, want 4", n)
	}
}

func value(m *plugin.Metrics, name string) (sum float64) {
	for _, s := range m.Series() {
		if s.Name == name {
			sum += s.Value()
		}
	}
	return sum
}

func TestWhatIsLostIsCounted(t *testing.T) {
	c, metrics := newCollector(t), plugin.NewMetrics()
	c.status = http.StatusBadRequest
	o := openTracer(t, c.url, func(_ *Config, env *plugin.Env) { env.Metrics = metrics })
	tellSubmit(o, newMessage())
	closeIt(t, o)
	if n := value(metrics, "otlp_dropped_spans_total"); n != 4 {
		t.Errorf("%g spans dropped by a collector that refuses, want 4", n)
	}

	metrics = plugin.NewMetrics()
	c.stall()
	o = openTracer(t, c.url, func(_ *Config, env *plugin.Env) { env.Metrics = metrics })
	const told = 3 * maxQueued
	for range told {
		o.Step(step(newMessage(), plugin.StepDecided, 0, ms))
	}
	closeIt(t, o)
	if dropped := value(metrics, "otlp_dropped_spans_total"); dropped != told || value(metrics, "otlp_exported_spans_total") != 0 {
		t.Errorf("%g spans dropped, want %d", dropped, told)
	}
}

func TestConfig(t *testing.T) {
	good := *Plugin.NewConfig().(*Config)
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Endpoint = "127.0.0.1:4318" },
		func(c *Config) { c.Endpoint = "grpc://h:4317" },
		func(c *Config) { c.Endpoint = "http://" },
		func(c *Config) { c.Endpoint = "http://u:p@h" },
		func(c *Config) { c.Endpoint = "http://h?x" },
		func(c *Config) { c.Endpoint = "\x00" },
		func(c *Config) { c.Sample = -0.1 },
		func(c *Config) { c.Sample = 1.1 },
		func(c *Config) { c.Sample = math.NaN() },
		func(c *Config) { c.ServiceName = "" },
		func(c *Config) { c.Timeout = 0 },
		func(c *Config) { c.Timeout = time.Hour },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
	for endpoint, want := range map[string]string{
		"http://h:4318": "http://h:4318/v1/traces", "http://h:4318/": "http://h:4318/v1/traces", "https://h/otlp": "https://h/otlp/v1/traces",
	} {
		if u, err := (Config{Endpoint: endpoint}).url(); err != nil || u.String() != want {
			t.Errorf("%s: %s, %v", endpoint, u, err)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	s := step(newMessage(), plugin.StepAttempted, 0, ms)
	s.Peer = "sip:1002@203.0.113.20:5060"
	b.ReportAllocs()
	for b.Loop() {
		spans := builder{step: s, origin: originOf(s.Message)}
		spans.child()
	}
}
