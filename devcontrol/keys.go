package main

// The text of pre-auth keys and API keys: hskey-<kind>-<12>-<64>, of which only the first twelve and a hash are kept.
//
// Headscale hashes with bcrypt; the secret has 384 random bits, so SHA-256 guards it as well and costs nothing.

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"
)

const (
	authKeyKind = "hskey-auth-"
	apiKeyKind  = "hskey-api-"

	prefixLength = 12
	secretLength = 64
)

var errKeyText = errors.New("failed to parse auth-key")

// newKey returns the whole text, which nobody sees again, and what is kept of it.
func newKey(kind string) (text, prefix string, hash []byte) {
	prefix, secret := randomText(prefixLength), randomText(secretLength)
	return kind + prefix + "-" + secret, prefix, hashSecret(secret)
}

func randomText(length int) string {
	random := make([]byte, length)
	rand.Read(random) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(random)[:length]
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// cutKey takes a key's text apart. The prefix may itself contain hyphens, so it goes by lengths.
func cutKey(kind, text string) (prefix, secret string, ok bool) {
	rest, found := strings.CutPrefix(text, kind)
	if !found || len(rest) != prefixLength+1+secretLength || rest[prefixLength] != '-' {
		return "", "", false
	}
	return rest[:prefixLength], rest[prefixLength+1:], true
}

func isSecretOf(hash []byte, secret string) bool {
	return subtle.ConstantTimeCompare(hash, hashSecret(secret)) == 1
}

// mask is how lists show a key.
func mask(kind, prefix string) string { return kind + prefix + "-***" }

// findAuthKey returns the key of that text, or the error that tailscaled's user sees.
func (state *State) findAuthKey(text string) (*AuthKey, error) {
	prefix, secret, ok := cutKey(authKeyKind, text)
	if !ok {
		if strings.HasPrefix(text, authKeyKind) {
			return nil, errKeyText
		}
		return nil, errUnknownAuthKey
	}
	for _, authKey := range state.AuthKeys {
		if authKey.Prefix == prefix {
			if !isSecretOf(authKey.Hash, secret) {
				return nil, errors.New("invalid auth key")
			}
			return authKey, nil
		}
	}
	return nil, errUnknownAuthKey
}

var errUnknownAuthKey = errors.New("invalid pre auth key")

// check says whether a machine may join with the key now.
func (authKey *AuthKey) check(now time.Time) error {
	if authKey.Expiration.Before(now) {
		return errors.New("authkey expired")
	}
	if authKey.Used && !authKey.Reusable {
		return errors.New("authkey already used")
	}
	return nil
}

// checkTag refuses what Headscale refuses on a key. Whether the policy knows the tag is not asked.
func checkTag(tag string) error {
	switch {
	case !strings.HasPrefix(tag, "tag:"):
		return errors.New("tag must start with the string 'tag:'")
	case strings.ToLower(tag) != tag:
		return errors.New("tag should be lowercase")
	case len(strings.Fields(tag)) > 1:
		return errors.New("tags must not contain spaces")
	}
	return nil
}

func sortedTags(tags []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(tags)))
}
