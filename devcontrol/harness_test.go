package main

// What the tests stand on: a whole server behind real HTTP, and machines that speak the control protocol through Noise
// with Tailscale's own client (control/tsp).

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/control/tsp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

const (
	farFuture = "2099-01-01T00:00:00Z"
	ourPolicy = `{"tagOwners":{"tag:relay":[],"tag:agent":[],"tag:operator":[]},
		"grants":[{"src":["tag:relay","tag:operator"],"dst":["tag:agent"],"ip":["tcp:2138"]}]}`
)

func TestMain(m *testing.M) {
	if os.Getenv("DEVCONTROL_TEST_MAIN") != "" { // serve_test.go runs this binary as devcontrol
		main()
		return
	}
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

type testServer struct {
	*Server
	t      *testing.T
	dir    string
	url    string
	apiKey string
	stop   func()
}

func startServer(t *testing.T) *testServer {
	return startServerOn(t, t.TempDir())
}

// startServerOn serves the state directory; stop and start again to play a restart.
func startServerOn(t *testing.T, dir string) *testServer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	front := httptest.NewUnstartedServer(nil)
	base := must(url.Parse("http://" + front.Listener.Addr().String()))
	server := must(newServer(ctx, Config{
		StateDir:  dir,
		ServerURL: base,
		PrefixV4:  netip.MustParsePrefix("100.64.0.0/10"),
		PrefixV6:  netip.MustParsePrefix("fd7a:115c:a1e0::/48"),
		DERPMap:   newDERPMap(base, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), 3478),
		VerifyURL: base.String() + "/verify",
	}))
	server.offlineGrace = 20 * time.Millisecond
	front.Config.Handler = server.handler(ctx)
	front.Start()
	ts := &testServer{Server: server, t: t, dir: dir, url: front.URL}
	ts.stop = func() {
		cancel()
		front.CloseClientConnections()
		front.Close()
		if err := server.close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { ts.stop() })
	answer := ts.over(server.socketHandler(), "POST", "/api/v1/apikey", `{"expiration":"`+farFuture+`"}`)
	ts.apiKey = answer["apiKey"].(string)
	return ts
}

// restart ends the server and serves its directory again.
func (ts *testServer) restart() *testServer {
	ts.t.Helper()
	ts.stop()
	ts.stop = func() {}
	return startServerOn(ts.t, ts.dir)
}

type object = map[string]any

func (ts *testServer) over(handler http.Handler, method, path, body string) object {
	ts.t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
	var answer object
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		ts.t.Fatalf("%s %s: %d %s", method, path, recorder.Code, recorder.Body)
	}
	return answer
}

func (ts *testServer) debug(method, path, body string) object {
	ts.t.Helper()
	return ts.over(ts.debugHandler(), method, path, body)
}

// send makes an API call and returns its status and body.
func (ts *testServer) send(method, path, body string) (int, string, error) {
	request := must(http.NewRequest(method, ts.url+path, strings.NewReader(body)))
	request.Header.Set("Authorization", "Bearer "+ts.apiKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

// api makes an API call that has to succeed.
func (ts *testServer) api(method, path, body string) object {
	ts.t.Helper()
	status, text, err := ts.send(method, path, body)
	var answer object
	if err != nil || status != http.StatusOK || json.Unmarshal([]byte(text), &answer) != nil {
		ts.t.Fatalf("%s %s: %d %s %v", method, path, status, text, err)
	}
	return answer
}

// refused makes an API call that has to fail like this.
func (ts *testServer) refused(method, path, body string, status int, message string) {
	ts.t.Helper()
	gotStatus, text, err := ts.send(method, path, body)
	if err != nil {
		ts.t.Fatal(err)
	}
	var answer struct {
		Code    int
		Message string
		Details []any
	}
	if err := json.NewDecoder(bytes.NewBufferString(text)).Decode(&answer); err != nil {
		ts.t.Fatalf("%s %s: %s is no error", method, path, text)
	}
	if gotStatus != status || !strings.Contains(answer.Message, message) || answer.Code == 0 || answer.Details == nil {
		ts.t.Errorf("%s %s: %d %s, want %d and %q", method, path, gotStatus, text, status, message)
	}
}

func (ts *testServer) mint(tags ...string) (id, text string) {
	ts.t.Helper()
	body := must(json.Marshal(object{"aclTags": tags, "expiration": farFuture}))
	created := ts.api("POST", "/api/v1/preauthkey", string(body))["preAuthKey"].(object)
	return created["id"].(string), created["key"].(string)
}

func (ts *testServer) putPolicy(text string) {
	ts.t.Helper()
	ts.api("PUT", "/api/v1/policy", string(must(json.Marshal(object{"policy": text}))))
}

func (ts *testServer) node(id string) object {
	ts.t.Helper()
	return ts.api("GET", "/api/v1/node/"+id, "")["node"].(object)
}

// eventually waits for something that the server does by itself.
func (ts *testServer) eventually(what string, holds func() bool) {
	ts.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.t.Fatal("never: " + what)
		}
	}
}

// machine plays tailscaled.
type machine struct {
	t       *testing.T
	client  *tsp.Client
	machine key.MachinePrivate
	nodeKey key.NodePrivate
	name    string
	id      string
}

func (ts *testServer) machine(name string) *machine {
	m := &machine{t: ts.t, machine: key.NewMachine(), nodeKey: key.NewNode(), name: name}
	m.reachAt(ts)
	return m
}

// reachAt makes the machine talk to this server, as after a restart of it.
func (m *machine) reachAt(ts *testServer) {
	m.client = must(tsp.NewClient(tsp.ClientOpts{ServerURL: ts.url, MachineKey: m.machine}))
	m.t.Cleanup(func() { m.client.Close() })
}

func (m *machine) register(authKey string, tags ...string) *tailcfg.RegisterResponse {
	m.t.Helper()
	response, err := m.client.Register(m.t.Context(), tsp.RegisterOpts{
		NodeKey: m.nodeKey, AuthKey: authKey, Hostinfo: &tailcfg.Hostinfo{Hostname: m.name}, Tags: tags,
	})
	if err != nil {
		return &tailcfg.RegisterResponse{Error: strings.TrimPrefix(err.Error(), "register: ")}
	}
	return response
}

// join registers with a new key of those tags and returns the id of the node.
func (ts *testServer) join(m *machine, tags ...string) string {
	ts.t.Helper()
	_, text := ts.mint(tags...)
	if response := m.register(text); response.Error != "" {
		ts.t.Fatal(response.Error)
	}
	m.id = ts.idOf(m)
	return m.id
}

func (ts *testServer) idOf(m *machine) string {
	id := ""
	ts.view(func(state *State) {
		if node := state.nodeByKey(m.nodeKey.Public()); node != nil {
			id = node.ID.String()
		}
	})
	return id
}

// netmap is an open map stream.
type netmap struct {
	t       *testing.T
	session *tsp.MapSession
	answers chan *tailcfg.MapResponse
}

func (m *machine) stream() *netmap {
	m.t.Helper()
	session, err := m.client.Map(m.t.Context(), tsp.MapOpts{NodeKey: m.nodeKey, Stream: true, Hostinfo: &tailcfg.Hostinfo{Hostname: m.name}})
	if err != nil {
		m.t.Fatal(err)
	}
	n := &netmap{t: m.t, session: session, answers: make(chan *tailcfg.MapResponse, 1000)}
	go func() {
		defer close(n.answers)
		for {
			answer, err := session.Next()
			if err != nil {
				return
			}
			n.answers <- answer
		}
	}()
	m.t.Cleanup(n.close)
	return n
}

func (n *netmap) close() { n.session.Close() }

// next returns the first answer that is wanted; the ones before it are dropped.
func (n *netmap) next(what string, wanted func(*tailcfg.MapResponse) bool) *tailcfg.MapResponse {
	n.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case answer, open := <-n.answers:
			if !open {
				n.t.Fatalf("the stream ended before %s", what)
			}
			if wanted(answer) {
				return answer
			}
		case <-deadline:
			n.t.Fatalf("no answer with %s", what)
		}
	}
}

func (n *netmap) first() *tailcfg.MapResponse {
	n.t.Helper()
	return n.next("the node itself", func(answer *tailcfg.MapResponse) bool { return answer.Node != nil })
}

// ended waits for the end of the stream.
func (n *netmap) ended() {
	n.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case _, open := <-n.answers:
			if !open {
				return
			}
		case <-deadline:
			n.t.Fatal("the stream did not end")
		}
	}
}

func ids(nodes []*tailcfg.Node) []string {
	list := []string{}
	for _, node := range nodes {
		list = append(list, string(node.StableID))
	}
	return list
}

func strs(values any) []string {
	list := []string{}
	for _, value := range values.([]any) {
		list = append(list, value.(string))
	}
	return list
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func equalList[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
