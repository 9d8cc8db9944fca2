package source

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/keys"
)

const (
	// minSecret is how long a secret must be, in octets (RFC 7518, 3.2).
	minSecret = 32
	// maxSkew is how much the clock of who signs may be ahead of ours.
	maxSkew = time.Minute
	// keyName is what we call the key towards OPA, whatever the signature says.
	keyName = "imgate"
)

// algorithms are those of RFC 7518 that a bundle may be signed with; true: by a
// secret that both sides know.
var algorithms = map[string]bool{
	"ES256": false, "ES384": false, "ES512": false,
	"PS256": false, "PS384": false, "PS512": false,
	"RS256": false, "RS384": false, "RS512": false,
	"HS256": true, "HS384": true, "HS512": true,
}

func knownAlgorithm(name string) bool {
	_, known := algorithms[name]
	return known
}

func algorithmNames() string {
	return strings.Join(slices.Sorted(maps.Keys(algorithms)), ", ")
}

// verificationKey is what a signature must have been made with. The algorithm
// is ours to say: a public key that is taken for a secret is no secret.
type verificationKey struct {
	algorithm string
	texts     []string // the key; a secret also with the line break that a file may end with
	id        string   // "": any
	scope     string
}

// verificationKey fetches the key.
func (b BundleConfig) verificationKey(ctx context.Context) (verificationKey, error) {
	k := verificationKey{algorithm: b.Algorithm, id: b.KeyID, scope: b.Scope}
	text, place := b.Key, "bundle.key"
	if b.KeyFile != "" {
		files, err := fileRoom(b.KeyFile).read(ctx)
		if err != nil {
			return k, err
		}
		text, place = string(files[0].Text), b.KeyFile
	}
	text = strings.TrimRight(text, "\r\n")
	if err := checkKey(text, algorithms[b.Algorithm]); err != nil {
		return k, fmt.Errorf("%s: with %s, %w", place, b.Algorithm, err)
	}
	k.texts = []string{text}
	if algorithms[b.Algorithm] {
		k.texts = append(k.texts, text+"\n") // as opa takes it from a file
	}
	return k, nil
}

// checkKey tells keys from secrets. It doesn't show what it found.
func checkKey(text string, secret bool) error {
	block, _ := pem.Decode([]byte(text))
	if secret {
		if block != nil {
			return errors.New("expected a secret, found a key in PEM, which is public")
		}
		if len(text) < minSecret {
			return fmt.Errorf("expected a secret of at least %d octets", minSecret)
		}
		return nil
	}
	if block == nil {
		return errors.New("expected a public key in PEM")
	}
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		_, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		_, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		_, err = x509.ParseCertificate(block.Bytes)
	default:
		return fmt.Errorf("expected a public key in PEM, found a %s", strings.ToLower(Clip(block.Type)))
	}
	return err
}

// verify checks the signature, then each file against it.
func (k verificationKey) verify(files map[string][]byte, now time.Time) error {
	text, there := files[signaturesName]
	if !there {
		return errors.New("it isn't signed: expected " + signaturesName + " in it")
	}
	var signatures bundle.SignaturesConfig
	if err := json.Unmarshal(text, &signatures); err != nil {
		return fmt.Errorf("%s: %w", signaturesName, err)
	}
	if len(signatures.Signatures) != 1 || signatures.Plugin != "" && signatures.Plugin != "_default" {
		return fmt.Errorf("%s: expected one signature", signaturesName)
	}
	signatures.Plugin = ""
	if err := k.checkHeader(signatures.Signatures[0]); err != nil {
		return err
	}
	signed, err := k.open(signatures)
	if err != nil {
		return err
	}
	if err := checkTimes(signatures.Signatures[0], now); err != nil {
		return err
	}
	return checkDigests(files, signed)
}

// checkHeader says early and clearly what wouldn't verify anyway.
func (k verificationKey) checkHeader(token string) error {
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	if err := part(token, 0, &header); err != nil {
		return err
	}
	if header.Algorithm != k.algorithm {
		return fmt.Errorf("it is signed with %s: expected %s", Clip(header.Algorithm), k.algorithm)
	}
	var claims struct {
		KeyID string `json:"keyid"` // where OPA kept it once
	}
	if err := part(token, 1, &claims); err != nil {
		return err
	}
	if id := header.KeyID; k.id != "" && id != k.id && (id != "" || claims.KeyID != k.id) {
		return fmt.Errorf("it is signed with the key %q: expected %q", Clip(id), k.id)
	}
	return nil
}

// open returns what was signed, if it was signed with the key.
func (k verificationKey) open(signatures bundle.SignaturesConfig) (signed map[string]bundle.FileInfo, err error) {
	for _, text := range k.texts {
		key := map[string]*keys.Config{keyName: {Key: text, Algorithm: k.algorithm, Scope: k.scope}}
		signed, err = bundle.VerifyBundleSignature(signatures, bundle.NewVerificationConfig(key, keyName, k.scope, nil))
		if err == nil {
			return signed, nil
		}
	}
	return nil, fmt.Errorf("its signature isn't good: %w", err)
}

// checkTimes looks at the times of RFC 7519, which OPA doesn't.
func checkTimes(token string, now time.Time) error {
	var claims struct {
		Expires   *float64 `json:"exp"`
		NotBefore *float64 `json:"nbf"`
	}
	if err := part(token, 1, &claims); err != nil {
		return err
	}
	seconds := float64(now.UnixNano()) / float64(time.Second)
	if claims.Expires != nil && seconds >= *claims.Expires {
		return errors.New("its signature has expired")
	}
	if claims.NotBefore != nil && seconds+maxSkew.Seconds() < *claims.NotBefore {
		return errors.New("its signature isn't good yet")
	}
	return nil
}

// part decodes a part of a JWS in its compact form (RFC 7515, 7.1).
func part(token string, i int, into any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%s: expected a JWT", signaturesName)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[i])
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: expected a JWT: %w", signaturesName, err)
	}
	return nil
}
