package ua

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// maxText is how much send reads from standard input, in octets.
const maxText = 64 << 10

// sending is a call of the send command.
type sending struct {
	password    string
	server      string
	contentType string
	timeout     time.Duration
	options     Options
}

func setupSend(flags *flag.FlagSet) plugin.Run {
	var s sending
	flags.StringVar(&s.password, "password", "", "the `password` of FROM")
	flags.StringVar(&s.server, "server", "", target.Usage)
	flags.StringVar(&s.contentType, "type", "text/plain", "the MIME `type` of TEXT")
	flags.DurationVar(&s.timeout, "timeout", 40*time.Second, "how long to wait for the answer")
	flags.Func("expires", "how `long` to keep the message if it can't be delivered now, such as 1h; 0s: not at all (default: as the operator says)", s.setExpires)
	return s.run
}

func (s *sending) setExpires(value string) error {
	expires, err := time.ParseDuration(value)
	if err != nil || expires < 0 {
		return errors.New("expected a duration such as 1h")
	}
	s.options.Expires = &expires
	return nil
}

func (s *sending) run(ctx context.Context, in plugin.Invocation) error {
	if len(in.Args) != 3 {
		return errors.New(`expected FROM TO TEXT, for example: 1001@sip.example.com 1002@sip.example.com "hello"`)
	}
	from, err := message.ParseAddress(in.Args[0])
	if err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	to, err := message.ParseAddress(in.Args[1])
	if err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	body, err := readText(in.Args[2], in.In)
	if err != nil {
		return err
	}
	result, err := s.send(ctx, in, from, to, body)
	if err != nil {
		return err
	}
	if !result.Taken() {
		return errors.New(result.Words())
	}
	_, err = fmt.Fprintln(in.Out, result.Words())
	return err
}

func (s *sending) send(ctx context.Context, in plugin.Invocation, from, to message.Address, body []byte) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	agent, err := Dial(ctx, Config{Address: from, Password: s.password, Server: target.Of(s.server, in.Settings)})
	if err != nil {
		return Result{}, err
	}
	defer agent.Close()
	result, err := agent.Message(ctx, to, s.contentType, body, s.options)
	if errors.Is(err, ErrNoAnswer) {
		return Result{}, fmt.Errorf("it isn't known whether the message was taken: %w", err)
	}
	return result, err
}

// readText returns TEXT, or for "-" what standard input holds.
func readText(argument string, stdin io.Reader) ([]byte, error) {
	if argument != "-" {
		return []byte(argument), nil
	}
	body, err := io.ReadAll(io.LimitReader(stdin, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("read the text from standard input: %w", err)
	}
	if len(body) > maxText {
		return nil, fmt.Errorf("the text on standard input is longer than %d octets", maxText)
	}
	return body, nil
}
