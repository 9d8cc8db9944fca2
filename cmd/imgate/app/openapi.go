package app

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.yaml
var description []byte

// serveDescription answers with the OpenAPI description of the admin API.
func serveDescription(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml") // RFC 9512
	_, _ = w.Write(description)                        // a client that has left needs no answer
}
