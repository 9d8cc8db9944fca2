package otlp

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/imgate/imgate/engine/plugin"
)

// How spans wait.
const (
	maxQueued   = 4_096 // spans
	maxBatch    = 512   // spans of one request
	batchWithin = time.Second
	closeWithin = 3 * time.Second
	firstRetry  = 500 * time.Millisecond // where the collector asks for another try
	maxRetry    = 5 * time.Second
	complainAt  = time.Minute // failures are logged so often
)

// exporter takes spans to the collector, in batches, one after the other.
type exporter struct {
	queue             chan *tracepb.Span
	client            otlptrace.Client
	http              *http.Transport
	timeout           time.Duration
	resource          *resourcepb.Resource
	log               *slog.Logger
	endpoint          string
	exported, dropped *plugin.Counter

	ctx        context.Context // ends when nothing is to be waited for any more
	cancel     context.CancelFunc
	ended      chan struct{} // no more spans are to be expected
	done       chan struct{}
	complained time.Time
}

func newExporter(c Config, env plugin.Env) (*exporter, error) {
	u, err := c.url()
	if err != nil {
		return nil, err
	}
	// Its own, so that Close can let go of the connections.
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConns: 2, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: c.Timeout,
	}
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpointURL(u.String()),
		otlptracehttp.WithHeaders(c.Headers),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, Timeout: c.Timeout}),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: c.Timeout,
		}),
	}
	// The context of New ends with New: the exporter's own ends with Close.
	ctx, cancel := context.WithCancel(context.Background())
	e := &exporter{
		queue:  make(chan *tracepb.Span, maxQueued),
		client: otlptracehttp.NewClient(options...), http: transport, timeout: c.Timeout,
		resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			textOf("service.name", c.ServiceName), textOf("service.instance.id", env.Node),
		}},
		log: env.Log, endpoint: u.Redacted(),
		exported: env.Metrics.Counter("otlp_exported_spans_total", "Spans that the collector has taken."),
		dropped:  env.Metrics.Counter("otlp_dropped_spans_total", "Spans that were not exported: too many waited, or the collector didn't take them."),
		ctx:      ctx, cancel: cancel, ended: make(chan struct{}), done: make(chan struct{}),
	}
	env.Metrics.Gauge("otlp_queue_spans", "Spans that wait to be exported.", func() float64 { return float64(len(e.queue)) })
	return e, nil
}

// put queues a span, and drops it if too many wait. It never waits itself.
func (e *exporter) put(span *tracepb.Span) {
	select {
	case e.queue <- span:
	default:
		e.dropped.Inc()
	}
}

// run exports until no more spans are to be expected and none waits.
func (e *exporter) run() {
	defer close(e.done)
	for {
		batch := e.batch()
		if len(batch) == 0 {
			return
		}
		e.export(batch)
	}
}

// batch waits for a span and returns it with those that come soon after, or
// nothing at the end. The queue isn't closed: a span that comes late does no
// harm.
func (e *exporter) batch() (spans []*tracepb.Span) {
	select {
	case span := <-e.queue:
		spans = append(spans, span)
	case <-e.ended:
		return e.waiting(nil)
	}
	soon := time.NewTimer(batchWithin)
	defer soon.Stop()
	for len(spans) < maxBatch {
		select {
		case span := <-e.queue:
			spans = append(spans, span)
		case <-soon.C:
			return spans
		case <-e.ended:
			return e.waiting(spans)
		}
	}
	return spans
}

// waiting adds what is there already.
func (e *exporter) waiting(spans []*tracepb.Span) []*tracepb.Span {
	for len(spans) < maxBatch {
		select {
		case span := <-e.queue:
			spans = append(spans, span)
		default:
			return spans
		}
	}
	return spans
}

func (e *exporter) export(spans []*tracepb.Span) {
	ctx, cancel := context.WithTimeout(e.ctx, e.timeout)
	defer cancel()
	err := e.client.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource: e.resource,
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "github.com/imgate/imgate/plugins/otlp"},
			Spans: spans,
		}},
	}})
	if err != nil {
		e.dropped.Add(uint64(len(spans)))
		e.complain(err)
		return
	}
	e.exported.Add(uint64(len(spans)))
}

func (e *exporter) complain(err error) {
	if now := time.Now(); now.Sub(e.complained) >= complainAt {
		e.complained = now
		e.log.Warn("traces can't be exported", "peer", e.endpoint, "reason", err)
	}
}

// close exports what waits, for closeWithin at most.
func (e *exporter) close() {
	close(e.ended)
	defer time.AfterFunc(closeWithin, e.cancel).Stop()
	<-e.done
	e.cancel()
	e.http.CloseIdleConnections()
}
