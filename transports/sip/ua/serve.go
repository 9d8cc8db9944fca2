package ua

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
)

// Incoming is a message that arrived. Nothing in it can be trusted.
type Incoming struct {
	From, To    message.Address
	ContentType string
	Body        []byte
	CallID      string
	CSeq        uint32
	Date        time.Time // as the Date header says; zero if it doesn't
}

// allow lists the methods that an agent answers.
const allow = "MESSAGE, OPTIONS"

// serve answers a request. One without what every answer must repeat gets
// none (RFC 3261 §8.2.6.2).
func (a *Agent) serve(l *link, r *sip.Request) {
	if r.Via() == nil || r.From() == nil || r.To() == nil || r.CallID() == nil || r.CSeq() == nil {
		return
	}
	switch r.Method {
	case sip.ACK: // has no answer
	case sip.MESSAGE:
		a.serveMessage(l, r)
	case sip.OPTIONS:
		a.answer(l, r, 200, "OK", sip.NewHeader("Allow", allow), sip.NewHeader("Accept", "*/*"))
	default:
		a.answer(l, r, 405, "Method Not Allowed", sip.NewHeader("Allow", allow))
	}
}

// serveMessage shows a message once, however often it comes. The gateway
// repeats a delivery with the same Call-ID, CSeq and From tag, be it within a
// transaction or in another one.
func (a *Agent) serveMessage(l *link, r *sip.Request) {
	a.serving.Lock()
	defer a.serving.Unlock()
	tag, _ := r.From().Params.Get("tag")
	branch, _ := r.Via().Params.Get("branch")
	key := strings.Join([]string{r.CallID().Value(), strconv.FormatUint(uint64(r.CSeq().SeqNo), 10), tag}, "\n")
	if earlier, found := a.taken.members[key]; found {
		if earlier != branch && a.config.Again != nil {
			a.taken.members[key] = branch // its retransmissions are no news
			a.config.Again(incoming(r))
		}
		a.answer(l, r, 200, "OK")
		return
	}
	if a.config.Handle == nil || !a.config.Handle(incoming(r)) {
		a.answer(l, r, 480, "Temporarily Unavailable", sip.NewHeader("Retry-After", "5"))
		return
	}
	a.taken.add(key, branch)
	a.answer(l, r, 200, "OK")
}

func incoming(r *sip.Request) Incoming {
	m := Incoming{
		From: addressOf(r.From().Address), To: addressOf(r.To().Address),
		ContentType: "text/plain", Body: r.Body(), CallID: r.CallID().Value(), CSeq: r.CSeq().SeqNo,
	}
	if h := r.ContentType(); h != nil {
		m.ContentType = h.Value()
	}
	if h := r.GetHeader("Date"); h != nil {
		m.Date, _ = http.ParseTime(h.Value()) // the date of RFC 1123, as in HTTP
	}
	return m
}

// addressOf reads a URI of any kind; what is no SIP URI stands for itself.
func addressOf(uri sip.Uri) message.Address {
	if uri.Host == "" {
		return message.Address{User: uri.String()}
	}
	user, err := url.PathUnescape(uri.User)
	if err != nil {
		user = uri.User
	}
	return message.Address{User: user, Host: strings.ToLower(uri.Host)}
}

// answer sends a final response to where the request came from: the socket is
// connected. A lost answer is asked for again by a retransmission or a repeat, so
// an error needs no care.
func (a *Agent) answer(l *link, r *sip.Request, code int, reason string, headers ...sip.Header) {
	r.SetSource(l.conn.RemoteAddr().String())
	if to := r.To(); !to.Params.Has("tag") {
		to.Params.Add("tag", a.tag)
	}
	response := sip.NewResponseFromRequest(r, code, reason, nil)
	for _, h := range headers {
		response.AppendHeader(h)
	}
	_ = l.write([]byte(response.String()))
}

// maxRecent is how many messages an agent remembers to have shown.
const maxRecent = 4096

// recent is a map that forgets its oldest member when it is full: the branch of
// the newest transaction in which a message came.
type recent struct {
	members map[string]string
	order   []string // a ring once it is full
	next    int
}

func (s *recent) add(member, branch string) {
	if s.members == nil {
		s.members = make(map[string]string)
	}
	s.members[member] = branch
	if len(s.order) < maxRecent {
		s.order = append(s.order, member)
		return
	}
	delete(s.members, s.order[s.next])
	s.order[s.next] = member
	s.next = (s.next + 1) % maxRecent
}
