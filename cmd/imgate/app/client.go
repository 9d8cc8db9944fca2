package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgate/imgate/engine"
	"github.com/imgate/imgate/engine/plugin"
)

const (
	maxToken      = 512 // characters
	dialTimeout   = 3 * time.Second
	callTimeout   = time.Minute
	streamTimeout = 30 * time.Minute // as long as the server takes for one request
	maxAnswer     = 64 << 20         // octets of the answer to a call
	maxErrorText  = 64 << 10         // octets of an error
	maxOpenPage   = 16 << 20         // octets of a page that needs no token
)

// client talks to the admin API of the server that runs with the same
// configuration on this machine.
type client struct {
	node      string // what the configuration calls it
	address   string
	tokenFile string
	http      *http.Client
}

var _ plugin.AdminClient = (*client)(nil)

func newClient(config engine.Config) *client {
	return &client{
		node:      config.Node,
		address:   reachable(config.AdminListen),
		tokenFile: filepath.Join(config.DataDir, engine.TokenFile),
		http: &http.Client{
			// No proxy: the server is here. No redirects: the token stays here.
			Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// withAdmin runs a command that talks to the server of the configuration.
func withAdmin(load *source, do func(cmd *cobra.Command, admin *client, args []string) error) func(*cobra.Command, []string) error {
	return work(func(cmd *cobra.Command, args []string) error {
		config, err := load.load()
		if err != nil {
			return err
		}
		admin := newClient(config)
		defer admin.close()
		return do(cmd, admin, args)
	})
}

func (c *client) close() { c.http.CloseIdleConnections() }

// reachable turns an address to listen at into one to call: who listens
// everywhere listens on loopback too.
func reachable(listen string) string {
	at, err := netip.ParseAddrPort(listen)
	switch {
	case err != nil || !at.Addr().IsUnspecified():
		return listen
	case at.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()).String()
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()).String()
}

// apiError is what the server answered instead of doing what it was asked for.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// Call implements plugin.AdminClient. It takes at most a minute and 64 MiB.
func (c *client) Call(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var content io.Reader
	kind := ""
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("admin API: %w", err)
		}
		content, kind = bytes.NewReader(encoded), "application/json"
	}
	response, err := c.send(ctx, method, path, kind, content)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("the answer of the server at %s can't be read: %w", c.address, err)
	}
	return nil
}

// Stream implements plugin.AdminClient. It takes at most half an hour.
func (c *client) Stream(ctx context.Context, method, path, contentType string, body io.Reader, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	response, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(out, response.Body); err != nil {
		return fmt.Errorf("the answer of the server at %s broke off: %w", c.address, err)
	}
	return nil
}

// page reads a page that is open to all, such as /readyz, whatever its status
// is. It takes as long as ctx lasts, and at most 16 MiB.
func (c *client) page(ctx context.Context, path string) (status int, content []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("admin API: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, c.explain(ctx, err)
	}
	defer response.Body.Close()
	content, err = io.ReadAll(io.LimitReader(response.Body, maxOpenPage))
	if err != nil {
		return 0, nil, fmt.Errorf("the answer of the server at %s broke off: %w", c.address, err)
	}
	return response.StatusCode, content, nil
}

// send returns a response that says yes.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, body)
	if err != nil {
		return nil, fmt.Errorf("admin API: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		defer response.Body.Close()
		return nil, c.refusal(response)
	}
	return response, nil
}

func (c *client) token() (string, error) {
	file, err := os.Open(c.tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no server has run here: %s, which it makes, doesn't exist: is `imgate serve` running with this configuration and in this directory?", c.tokenFile)
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("only the user that runs the server may read %s", c.tokenFile)
	}
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// explain says in words why there was no answer.
func (c *client) explain(ctx context.Context, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("no server answers at %s: is `imgate serve` running with this configuration?", c.address)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the server at %s didn't answer in time", c.address)
	}
	return fmt.Errorf("no answer from the server at %s: %w", c.address, errors.Unwrap(err)) // without the URL
}

// refusal says in words what the server said.
func (c *client) refusal(response *http.Response) error {
	text := c.refusalText(response)
	switch response.StatusCode {
	case http.StatusServiceUnavailable:
		text = fmt.Sprintf("the server at %s can't do that now: %s", c.address, inOneLine(text))
	case http.StatusUnauthorized:
		text = fmt.Sprintf("the server at %s refuses the token in %s: does it run with this configuration and in this directory?", c.address, c.tokenFile)
	}
	return &apiError{response.StatusCode, text}
}

func (c *client) refusalText(response *http.Response) string {
	content, err := io.ReadAll(io.LimitReader(response.Body, maxErrorText))
	var told struct {
		Error string `json:"error"`
	}
	if err != nil || json.Unmarshal(content, &told) != nil || told.Error == "" {
		return fmt.Sprintf("the server at %s answered %s", c.address, response.Status)
	}
	return told.Error
}
