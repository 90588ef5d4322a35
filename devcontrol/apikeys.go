package main

// The command "apikeys create", with Headscale's flags and output: it asks the running server over its unix socket.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func apiKeysCommand(args []string, output io.Writer) error {
	if len(args) == 0 || args[0] != "create" {
		return errors.New(`cannot run apikeys: the only thing that it can do is "apikeys create"`)
	}
	var socket, expiration, format string
	set := flag.NewFlagSet("devcontrol apikeys create", flag.ContinueOnError)
	set.StringVar(&socket, "unix-socket", "", "`path` of the running server's socket (required)")
	set.StringVar(&expiration, "e", "90d", "`duration` until the key expires, such as 30m, 24h, 90d")
	set.StringVar(&expiration, "expiration", "90d", "the same as -e")
	set.StringVar(&format, "o", "", "output `format`: json, or the bare key")
	set.StringVar(&format, "output", "", "the same as -o")
	if err := parseFlags(set, args[1:]); err != nil {
		return err
	}
	lifetime, err := parseDuration(expiration)
	if err != nil {
		return err
	}
	if socket == "" {
		return errors.New("cannot create an API key: name the server's --unix-socket")
	}
	if format != "" && format != "json" {
		return fmt.Errorf("cannot create an API key: %q is no output format; use json, or none", format)
	}
	apiKey, err := createAPIKeyOver(socket, time.Now().Add(lifetime))
	if err != nil {
		return fmt.Errorf("cannot create an API key: %w", err)
	}
	if format == "json" {
		return json.NewEncoder(output).Encode(apiKey)
	}
	_, err = fmt.Fprintln(output, apiKey)
	return err
}

func createAPIKeyOver(socket string, expiration time.Time) (string, error) {
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	body, err := json.Marshal(map[string]timestamp{"expiration": timestamp(expiration)})
	if err != nil {
		return "", err
	}
	response, err := client.Post("http://devcontrol/api/v1/apikey", "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct{ APIKey, Message string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("the server answered %s, which is not JSON: %w", response.Status, err)
	}
	if answer.APIKey == "" {
		return "", fmt.Errorf("the server answered %s: %s", response.Status, answer.Message)
	}
	return answer.APIKey, nil
}

// parseDuration takes Go's durations and, like Headscale, whole days, weeks and years.
func parseDuration(text string) (time.Duration, error) {
	for unit, hours := range map[string]int{"d": 24, "w": 7 * 24, "y": 365 * 24} {
		if digits, found := strings.CutSuffix(text, unit); found {
			if count, err := strconv.ParseUint(digits, 10, 16); err == nil {
				return time.Duration(count) * time.Duration(hours) * time.Hour, nil
			}
		}
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration <= 0 {
		return 0, fmt.Errorf("cannot use the duration %q: write it like 30m, 24h or 90d", text)
	}
	return duration, nil
}
