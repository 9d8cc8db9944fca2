package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/imgate/imgate/engine/plugin"
)

func setupImport(flags *flag.FlagSet) plugin.Run {
	output := tableOrJSON(flags)
	return func(ctx context.Context, in plugin.Invocation) error {
		if len(in.Args) != 1 {
			return plugin.Usage("expected one file, for example: account import accounts.csv")
		}
		file, err := openInput(in, in.Args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		body, endProgress := withProgress(file, in.Err)
		reply, err := sendImport(ctx, in.Admin, in.Args[0], body)
		endProgress()
		if err != nil {
			return err
		}
		return output.print(in.Out, reply, func() error {
			_, err := fmt.Fprintf(in.Out, "imported %d accounts\n", reply.Imported)
			return err
		})
	}
}

func sendImport(ctx context.Context, admin plugin.AdminClient, name string, body io.Reader) (reply importAnswer, err error) {
	if name == "-" {
		name = "standard input"
	}
	path := "/v1/accounts/import?" + url.Values{"file": {shortened(name)}}.Encode()
	var text bytes.Buffer
	err = admin.Stream(ctx, http.MethodPost, path, "text/csv", body, &text)
	if err != nil && strings.HasPrefix(err.Error(), name+":") {
		return reply, fmt.Errorf("nothing was imported:\n%w", err) // so that each row's line begins with FILE:LINE
	}
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(text.Bytes(), &reply); err != nil {
		return reply, fmt.Errorf("read the server's answer: %w", err)
	}
	return reply, nil
}

// shortened keeps the end of a name that is too long for the admin API.
func shortened(name string) string { return name[max(0, len(name)-maxFileName):] }

// withProgress shows how much of a file has been sent, if its length is known
// and whoever waits sits at a terminal. end leaves the bar as it is then.
func withProgress(file io.Reader, to io.Writer) (body io.Reader, end func()) {
	size := sizeOf(file)
	if size <= 0 || !isTerminal(to) {
		return file, func() {}
	}
	bar := newProgress(to, size)
	return progressReader{file, bar}, func() {
		_ = bar.Exit() // never fails
		fmt.Fprintln(to)
	}
}

func newProgress(to io.Writer, size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(to),
		progressbar.OptionSetDescription("sending"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30),
	)
}

// progressReader shows on a bar how much was read.
type progressReader struct {
	io.Reader
	bar *progressbar.ProgressBar
}

func (r progressReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	// A bar that can't be drawn, or a file that has grown, is no reason to stop.
	_ = r.bar.Add(n)
	return n, err
}

// sizeOf returns the length of a regular file; 0: it isn't known.
func sizeOf(file io.Reader) int64 {
	f, ok := file.(*os.File)
	if !ok {
		return 0
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
