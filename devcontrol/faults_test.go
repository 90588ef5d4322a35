package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
)

func TestTheNthCallFails(t *testing.T) {
	ts := startServer(t)
	ts.debug("POST", "/faults", `{"method":"GET","path":"/api/v1/node","nth":2,"count":2,"status":503}`)
	ts.api("GET", "/api/v1/node", "")
	ts.api("GET", "/api/v1/user", "")
	ts.refused("GET", "/api/v1/node", "", 503, "fault")
	ts.refused("GET", "/api/v1/node", "", 503, "fault")
	ts.api("GET", "/api/v1/node", "")
	equal(t, "seen", ts.debug("GET", "/faults", "")["faults"].([]any)[0].(object)["seen"], any(4.0))
}

func TestAFaultForEver(t *testing.T) {
	ts := startServer(t)
	set := ts.debug("POST", "/faults", `{"path":"/api/v1/*","count":0,"status":502,"body":"<html>bad gateway</html>"}`)
	for range 5 {
		status, text, err := ts.send("GET", "/api/v1/node", "")
		if err != nil || status != 502 || !strings.Contains(text, "<html>") {
			t.Errorf("%d %s %v", status, text, err)
		}
	}
	equal(t, "cleared", ts.debug("DELETE", "/faults?id="+jsonNumber(set["id"]), "")["cleared"], any(1.0))
	ts.api("GET", "/api/v1/node", "")
}

func TestAFaultThatPlaysAWrongKey(t *testing.T) {
	ts := startServer(t)
	ts.debug("POST", "/faults", `{"status":401}`)
	status, text, err := ts.send("GET", "/api/v1/node", "")
	if err != nil || status != 401 || text != "Unauthorized" {
		t.Errorf("%d %s %v", status, text, err)
	}
}

func TestALostAnswer(t *testing.T) {
	ts := startServer(t)
	ts.debug("POST", "/faults", `{"method":"POST","path":"/api/v1/preauthkey","loseAnswer":true}`)
	if _, _, err := ts.send("POST", "/api/v1/preauthkey", `{"aclTags":["tag:agent"],"expiration":"`+farFuture+`"}`); err == nil {
		t.Error("there was an answer")
	}
	equal(t, "but the key is there", len(ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any)), 1)
}

func TestADelay(t *testing.T) {
	ts := startServer(t)
	ts.debug("POST", "/faults", `{"path":"/health","delaySeconds":0.05}`)
	begin := time.Now()
	must(http.Get(ts.url + "/health")).Body.Close()
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}

func TestAStallEndsWhenItIsCleared(t *testing.T) {
	ts := startServer(t)
	relay, _, _ := joinThree(ts)
	stream := relay.stream()
	stream.first()
	_, text := ts.mint("tag:agent")
	ts.debug("POST", "/faults", `{"stall":true,"count":0}`)
	answered := make(chan error)
	go func() {
		response, err := http.Get(ts.url + "/health")
		if err == nil {
			response.Body.Close()
		}
		answered <- err
	}()
	seen := func(count float64) func() bool {
		return func() bool {
			return ts.debug("GET", "/faults", "")["faults"].([]any)[0].(object)["seen"].(float64) >= count
		}
	}
	ts.eventually("the call is seen", seen(1))
	// A node that joins behind the stall is not told to the stream either.
	ts.mu.Lock()
	request := &tailcfg.RegisterRequest{NodeKey: ts.machine("x").nodeKey.Public(), Auth: &tailcfg.RegisterResponseAuth{AuthKey: text}}
	_, err := ts.register(ts.state, request, ts.machine("x").machine.Public())
	ts.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	ts.eventually("the stream is silent", seen(2))
	select {
	case <-answered:
		t.Fatal("the stalled call was answered")
	case answer := <-stream.answers:
		if len(answer.PeersChanged) > 2 {
			t.Fatal("the stalled stream was told of the node")
		}
	default:
	}
	ts.debug("DELETE", "/faults", "")
	if err := <-answered; err != nil {
		t.Error(err)
	}
	stream.next("the third agent", func(answer *tailcfg.MapResponse) bool { return len(answer.PeersChanged) == 3 })
}

func TestFaultsInTheControlProtocol(t *testing.T) {
	ts := startServer(t)
	ts.debug("POST", "/faults", `{"path":"/machine/register","status":500}`)
	m := ts.machine("x")
	_, text := ts.mint("tag:agent")
	if response := m.register(text); !strings.Contains(response.Error, "500") {
		t.Errorf("the first registration: %q", response.Error)
	}
	equal(t, "the second", m.register(text).Error, "")
}

func TestDroppedStreams(t *testing.T) {
	ts := startServer(t)
	relay, one, _ := joinThree(ts)
	atRelay, atOne := relay.stream(), one.stream()
	atRelay.first()
	atOne.first()
	equal(t, "of one node", ts.debug("POST", "/streams/drop", `{"node":"`+one.id+`"}`)["dropped"], any(1.0))
	atOne.ended()
	one.stream().first()
	equal(t, "of all", ts.debug("POST", "/streams/drop", `{}`)["dropped"], any(2.0))
	atRelay.ended()
}

func TestADeleteBehindOurBack(t *testing.T) {
	ts := startServer(t)
	relay, one, _ := joinThree(ts)
	stream := relay.stream()
	stream.first()
	ts.debug("POST", "/nodes/"+one.id+"/delete", "")
	stream.next("the removal", func(answer *tailcfg.MapResponse) bool { return len(answer.PeersRemoved) == 1 })
	ts.refused("GET", "/api/v1/node/"+one.id, "", 404, "node not found")
	equal(t, "once only", ts.debug("POST", "/nodes/"+one.id+"/delete", "")["message"], any("node not found"))
}

func TestAddressesFromTheLowestAgain(t *testing.T) {
	ts := startServer(t)
	first := ts.join(ts.machine("one"), "tag:agent")
	ts.join(ts.machine("two"), "tag:agent")
	address := strs(ts.node(first)["ipAddresses"])[0]
	ts.api("DELETE", "/api/v1/node/"+first, "")
	ts.debug("POST", "/addresses/restart", "")
	third := ts.join(ts.machine("three"), "tag:agent")
	equal(t, "address", strs(ts.node(third)["ipAddresses"])[0], address)
}

func TestFaultsThatSayNothing(t *testing.T) {
	ts := startServer(t)
	for _, body := range []string{
		`{}`, `{"nth":-1,"status":500}`, `{"count":-1,"status":500}`, `{"delaySeconds":-1}`, `{"status":99}`,
		`{"status":500,"loseAnswer":true}`, `{bad`,
	} {
		if ts.debug("POST", "/faults", body)["code"] != 3.0 {
			t.Errorf("%s was taken", body)
		}
	}
	equal(t, "faults", len(ts.debug("GET", "/faults", "")["faults"].([]any)), 0)
}

func TestTheDebugListenerIsNotForBrowsers(t *testing.T) {
	ts := startServer(t)
	for header, value := range map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"} {
		request := httptest.NewRequest("POST", "/streams/drop", nil)
		request.Header.Set(header, value)
		recorder := httptest.NewRecorder()
		ts.debugHandler().ServeHTTP(recorder, request)
		equal(t, header, recorder.Code, http.StatusForbidden)
	}
}

func jsonNumber(value any) string { return ID(value.(float64)).String() }
