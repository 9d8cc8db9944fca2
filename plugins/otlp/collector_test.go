package otlp

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin/plugintest"
)

// collector is an OpenTelemetry collector that keeps what it is sent.
type collector struct {
	url   string
	stall func() // answer no more
	leave func() // go away
	news  chan struct{}

	mu       sync.Mutex
	spans    []*tracepb.Span
	resource []*commonpb.KeyValue
	header   http.Header
	status   int
}

func newCollector(t plugintest.T) *collector {
	c := &collector{news: make(chan struct{}, 1), status: http.StatusOK}
	stalled, over := make(chan struct{}), make(chan struct{})
	c.stall = sync.OnceFunc(func() { close(stalled) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stalled:
			<-over
		default:
			c.take(w, r)
		}
	}))
	c.url = server.URL
	c.leave = sync.OnceFunc(func() { close(over); server.Close() })
	t.Cleanup(c.leave)
	return c
}

func (c *collector) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request coltracepb.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = r.Header
	if c.status == http.StatusOK {
		for _, of := range request.ResourceSpans {
			c.resource = of.Resource.Attributes
			for _, scope := range of.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}
	w.WriteHeader(c.status)
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *collector) all() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// waitFor waits for a message's spans of that name.
func (c *collector) waitFor(t plugintest.T, id message.ID, name string) {
	for {
		for _, span := range c.all() {
			if span.Name == name && attribute(span, "imgate.message.id") == id.String() {
				return
			}
		}
		select {
		case <-c.news:
		case <-t.Context().Done():
			t.Fatalf("no span %s of %s comes", name, id)
		}
	}
}
