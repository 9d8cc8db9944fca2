// Package otlp exports what happens to messages as OpenTelemetry traces, one
// for each message, over OTLP/HTTP.
//
// The spans of a message come from several moments, perhaps from several nodes:
// it may be stored by one process and delivered by another a day later. So
// nothing is remembered from step to step. Each step becomes spans that are
// complete, and what they have to agree on follows from the message alone:
//
//   - The trace ID is the message's ID. If whoever handed the message over
//     follows it (W3C Trace Context, Message.Trace), it is theirs, and our root
//     span continues their span.
//   - The root span "message" has the last 8 octets of the message's ID as its
//     span ID, of which 62 bits are random. It lasts from the receipt until the
//     message is stored, refused or discarded, and is exported then; that of a
//     typing notice, which is never stored, lasts until it has been delivered.
//   - All others are its children, with random span IDs: "policy", "authorize",
//     "store", "attempt", "delivery" (from the receipt until a device has it,
//     the next hop is responsible, or it has failed), and for what takes no
//     time an empty span with an event: "waiting", "quarantined", "requeued".
//
// It must not know any protocol, and never exports what a person wrote. Of
// addresses it exports the domains, unless it is told otherwise.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Plugin is the plugin.
var Plugin = plugin.DefineObserver("otlp", "exports a trace of each message to an OpenTelemetry collector",
	Config{Endpoint: "http://127.0.0.1:4318", Sample: 1, ServiceName: "imgate", Timeout: 10 * time.Second}, open)

// Config says where the traces go, and which.
type Config struct {
	Endpoint    string            `yaml:"endpoint" doc:"the collector's URL; /v1/traces is added to it"`
	Headers     map[string]string `yaml:"headers" doc:"sent with each request, as the collector wants it"`
	Sample      float64           `yaml:"sample" doc:"the part of all messages that is traced, 0 to 1; one that comes with a trace follows that"`
	ServiceName string            `yaml:"service_name" doc:"what the traces are found by"`
	Timeout     time.Duration     `yaml:"timeout" doc:"how long one export may take, 1s to 1m"`
	Addresses   bool              `yaml:"addresses" doc:"export whole addresses instead of their domains"`
}

// The limits of Timeout.
const (
	minTimeout = time.Second
	maxTimeout = time.Minute
)

// Validate refuses what can't be reached or sampled.
func (c Config) Validate() error {
	var errs []error
	wrong := func(key, expected string) {
		errs = append(errs, &plugin.InvalidKey{Key: key, Expected: expected})
	}
	if _, err := c.url(); err != nil {
		wrong("endpoint", `a URL such as "http://127.0.0.1:4318"`)
	}
	if !(c.Sample >= 0 && c.Sample <= 1) { // NaN is neither
		wrong("sample", "a number from 0 to 1")
	}
	if c.ServiceName == "" {
		wrong("service_name", "a name")
	}
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		wrong("timeout", fmt.Sprintf("%s to %s", minTimeout, maxTimeout))
	}
	return errors.Join(errs...)
}

// url is where the traces are posted to.
func (c Config) url() (*url.URL, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("neither http://host:port nor https://host:port")
	}
	return u.JoinPath("v1", "traces"), nil
}

// tracer is the observer.
type tracer struct {
	sampler   sampler
	addresses bool
	exporter  *exporter
}

func open(_ context.Context, env plugin.Env, c Config) (plugin.Observer, error) {
	e, err := newExporter(c, env)
	if err != nil {
		return nil, err
	}
	go e.run()
	return &tracer{sampler: newSampler(c.Sample), addresses: c.Addresses, exporter: e}, nil
}

// Packet is finer than a trace is.
func (t *tracer) Packet(*plugin.Packet) {}

// Step queues the spans that are complete with this step.
func (t *tracer) Step(s *plugin.Step) {
	origin := originOf(s.Message)
	if !t.sampler.wants(origin) {
		return
	}
	b := builder{step: s, origin: origin, addresses: t.addresses}
	if span := b.child(); span != nil {
		t.exporter.put(span)
	}
	if b.endsRoot() {
		t.exporter.put(b.root())
	}
}

// Close exports what waits, for three seconds at most, and lets go.
func (t *tracer) Close() error {
	t.exporter.close()
	return nil
}
