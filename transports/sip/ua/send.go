package ua

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// maxText is how much send reads from standard input, in octets.
const maxText = 64 << 10

// sending is a call of the send command.
type sending struct {
	password    password
	servers     target.Names
	network     string
	contentType string
	timeout     time.Duration
	options     Options
	trust       trust
}

func setupSend(flags *flag.FlagSet) plugin.Run {
	var s sending
	s.password.declare(flags, "FROM")
	flags.Var(&s.servers, "server", target.Usage+target.Further)
	flags.StringVar(&s.network, "transport", "", "`network`: "+target.Networks+" (default: UDP, and TCP for what is larger than 1300 octets)")
	s.trust.declare(flags)
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
		return plugin.Usage(`expected FROM TO TEXT, for example: 1001@sip.example.com 1002@sip.example.com "hello"`)
	}
	from, err := message.ParseAddress(in.Args[0])
	if err != nil {
		return plugin.Usage("FROM: %w", err)
	}
	to, err := recipient(in.Args[1])
	if err != nil {
		return plugin.Usage("TO: %w", err)
	}
	if !isMediaType(s.contentType) {
		return plugin.Usage("--type: %w", errMediaType)
	}
	config, err := configOf(s.servers, s.network, s.trust, in.Settings)
	if err != nil {
		return err
	}
	if config.Password, err = s.password.read(); err != nil {
		return err
	}
	config.Address = from
	body, err := readText(in.Args[2], in.In)
	if err != nil {
		return err
	}
	result, err := s.send(ctx, config, to, body)
	if err != nil {
		return err
	}
	if !result.Taken() {
		return errors.New(result.Words())
	}
	_, err = fmt.Fprintln(in.Out, result.Words())
	return err
}

// recipient reads user@domain, or a telephone number.
func recipient(text string) (message.Address, error) {
	if number, ok := message.ParseNumber(strings.TrimPrefix(text, "tel:")); ok {
		return message.Address{User: number}, nil
	}
	return message.ParseAddress(text)
}

// configOf says where the servers are.
func configOf(named target.Names, network string, t trust, settings plugin.Config) (Config, error) {
	servers, err := named.Of(network, settings)
	if err != nil {
		return Config{}, err
	}
	config := at(servers[0])
	config.Secure = t.config()
	for _, s := range servers[1:] {
		config.Others = append(config.Others, Server(s))
	}
	return config, nil
}

func at(s target.Server) Config {
	return Config{UDP: s.UDP, TCP: s.TCP, TLS: s.TLS, WS: s.WS, WSS: s.WSS}
}

func (s *sending) send(ctx context.Context, config Config, to message.Address, body []byte) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	agent, err := Dial(ctx, config)
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
