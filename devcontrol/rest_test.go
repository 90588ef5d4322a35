package main

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
)

func TestWithoutAPIKey(t *testing.T) {
	ts := startServer(t)
	expired := ts.api("POST", "/api/v1/apikey", `{}`)["apiKey"].(string) // without expiration: expired from the start
	for name, header := range map[string]string{
		"none": "", "another scheme": "Basic eA==", "lower case": "bearer " + ts.apiKey, "nonsense": "Bearer nope",
		"another secret": "Bearer " + ts.apiKey[:len(ts.apiKey)-1] + "!", "expired": "Bearer " + expired,
	} {
		request := must(http.NewRequest("GET", ts.url+"/api/v1/node", nil))
		request.Header.Set("Authorization", header)
		response := must(http.DefaultClient.Do(request))
		body := string(must(io.ReadAll(response.Body)))
		response.Body.Close()
		equal(t, name+" status", response.StatusCode, 401)
		equal(t, name+" body", body, "Unauthorized")
		equal(t, name+" type", response.Header.Get("Content-Type"), "text/plain; charset=utf-8")
	}
}

func TestAPIKeys(t *testing.T) {
	ts := startServer(t)
	text := ts.api("POST", "/api/v1/apikey", `{"expiration":"`+farFuture+`"}`)["apiKey"].(string)
	if !regexp.MustCompile(`^hskey-api-[\w-]{12}-[\w-]{64}$`).MatchString(text) {
		t.Errorf("the key is %s", text)
	}
	listed := ts.api("GET", "/api/v1/apikey", "")["apiKeys"].([]any)
	shown := listed[len(listed)-1].(object)
	equal(t, "prefix", shown["prefix"], any(text[:22]+"-***"))
	equal(t, "expiration", shown["expiration"], any(farFuture))
	equal(t, "lastSeen", shown["lastSeen"], nil)

	own := ts.apiKey
	ts.apiKey = text
	ts.api("GET", "/api/v1/node", "")
	ts.apiKey = own
	ts.api("POST", "/api/v1/apikey/expire", `{"prefix":"`+text[10:22]+`"}`)
	ts.apiKey = text
	status, _, _ := ts.send("GET", "/api/v1/node", "")
	equal(t, "after it is expired", status, 401)
	ts.apiKey = own
	ts.refused("POST", "/api/v1/apikey/expire", `{"prefix":"nosuch"}`, 500, "record not found")
	ts.refused("POST", "/api/v1/apikey/expire", `{"id":"99"}`, 500, "record not found")
	ts.refused("POST", "/api/v1/apikey/expire", `{}`, 400, "must provide id or prefix")
	ts.refused("POST", "/api/v1/apikey/expire", `{"id":"1","prefix":"x"}`, 400, "provide either id or prefix, not both")
	ts.api("DELETE", "/api/v1/apikey/"+text[:22]+"-***", "")
	equal(t, "keys", len(ts.api("GET", "/api/v1/apikey", "")["apiKeys"].([]any)), len(listed)-1)
}

func TestPreAuthKeys(t *testing.T) {
	ts := startServer(t)
	equal(t, "none is an empty list", len(ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any)), 0)
	body := `{"aclTags":["tag:agent","tag:a-1","tag:agent"],"expiration":"2099-01-01T02:00:00.120+02:00","nosuch":1}`
	created := ts.api("POST", "/api/v1/preauthkey", body)["preAuthKey"].(object)
	if !regexp.MustCompile(`^hskey-auth-[\w-]{12}-[\w-]{64}$`).MatchString(created["key"].(string)) {
		t.Errorf("the key is %s", created["key"])
	}
	equal(t, "id is a string", created["id"], any("1"))
	equal(t, "user", created["user"], nil)
	equal(t, "expiration in UTC", created["expiration"], any("2099-01-01T00:00:00.120Z"))
	equalList(t, "tags once and in order", strs(created["aclTags"]), []string{"tag:a-1", "tag:agent"})
	listed := ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any)[0].(object)
	equal(t, "masked in the list", listed["key"], any(created["key"].(string)[:23]+"-***"))

	ts.refused("POST", "/api/v1/preauthkey", `{}`, 500, "auth-key must be either tagged or owned by user")
	ts.refused("POST", "/api/v1/preauthkey", `{"user":"999"}`, 500, "user not found")
	ts.refused("POST", "/api/v1/preauthkey", `{"user":"abc"}`, 400, "invalid value for uint64 field")
	ts.refused("POST", "/api/v1/preauthkey", `{"aclTags":["agent"]}`, 400, "tag must start with the string 'tag:'")
	ts.refused("POST", "/api/v1/preauthkey", `{"aclTags":["tag:Agent"]}`, 400, "tag should be lowercase")
	ts.refused("POST", "/api/v1/preauthkey", `{"aclTags":["tag:a b"]}`, 400, "tags must not contain spaces")
	ts.refused("POST", "/api/v1/preauthkey", `{"aclTags":["tag:a"],"expiration":"tomorrow"}`, 400, "invalid google.protobuf.Timestamp value")
	ts.refused("POST", "/api/v1/preauthkey", `{"aclTags":["tag:a"],"ephemeral":true}`, 400, "no ephemeral nodes")
	ts.refused("POST", "/api/v1/preauthkey/expire", `{"id":"x"}`, 400, "invalid value for uint64 field")

	for _, id := range []string{`"1"`, `1`, `"999"`} { // ids come as strings or numbers; unknown ones succeed
		ts.api("POST", "/api/v1/preauthkey/expire", `{"id":`+id+`}`)
	}
	listed = ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any)[0].(object)
	if must(time.Parse(time.RFC3339, listed["expiration"].(string))).After(time.Now()) {
		t.Error("the key is not expired")
	}
	for range 2 {
		ts.api("DELETE", "/api/v1/preauthkey?id=1", "")
	}
	equal(t, "keys", len(ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any)), 0)
}

func TestNodes(t *testing.T) {
	ts := startServer(t)
	equal(t, "none is an empty list", len(ts.api("GET", "/api/v1/node", "")["nodes"].([]any)), 0)
	keyID, text := ts.mint("tag:agent")
	agent := ts.machine("agent")
	agent.register(text)
	listed := ts.api("GET", "/api/v1/node", "")["nodes"].([]any)[0].(object)
	equal(t, "user in the list", listed["user"].(object)["name"], any("tagged-devices"))
	equal(t, "its id", listed["user"].(object)["id"], any("2147455555"))
	alone := ts.node(listed["id"].(string))
	equal(t, "user by id", alone["user"], nil)
	equal(t, "id is a string", alone["id"], any("1"))
	equal(t, "machine key", alone["machineKey"], any(agent.machine.Public().String()))
	equal(t, "expiry", alone["expiry"], nil)
	equal(t, "method", alone["registerMethod"], any("REGISTER_METHOD_AUTH_KEY"))
	key := alone["preAuthKey"].(object)
	equal(t, "key id", key["id"], any(keyID))
	equal(t, "key is masked", key["key"], any(text[:23]+"-***"))
	equal(t, "key is used", key["used"], any(true))
	for _, list := range []string{"approvedRoutes", "availableRoutes", "subnetRoutes"} {
		equal(t, list, len(alone[list].([]any)), 0)
	}
	ts.refused("GET", "/api/v1/node/999", "", 404, "node not found")
	ts.refused("GET", "/api/v1/node/x", "", 400, "type mismatch, parameter: node_id")
	ts.refused("GET", "/api/v1/node/18446744073709551616", "", 400, "value out of range")
	ts.refused("GET", "/api/v1/node?user=nobody", "", 500, "user not found")
}

func TestTags(t *testing.T) {
	ts := startServer(t)
	relay, one, two := joinThree(ts)
	atRelay, atOne := relay.stream(), one.stream()
	atRelay.first()
	atOne.first()
	path := "/api/v1/node/" + one.id + "/tags"
	ts.refused("POST", path, `{"tags":[]}`, 400, "cannot remove all tags")
	ts.refused("POST", path, `{"tags":["x"]}`, 500, "tag must start with the string 'tag:'")
	ts.refused("POST", path, `{"tags":["tag:nosuch","tag:agent"]}`, 400, "requested tags [tag:nosuch] are invalid or not permitted")
	ts.refused("POST", "/api/v1/node/999/tags", `{"tags":["tag:agent"]}`, 404, "node not found")
	ts.api("POST", path, `{"tags":["tag:relay"]}`)
	equalList(t, "tags", strs(ts.node(one.id)["tags"]), []string{"tag:relay"})
	told := atOne.next("its new tags", func(answer *tailcfg.MapResponse) bool {
		return answer.Node != nil && slices.Equal(answer.Node.Tags, []string{"tag:relay"})
	})
	equalList(t, "and it sees agents now", ids(told.PeersChanged), []string{two.id})
	gone := atRelay.next("the node gone", func(answer *tailcfg.MapResponse) bool { return len(answer.PeersRemoved) > 0 })
	equalList(t, "and the relay does not see it any more", ids(gone.PeersChanged), []string{two.id})
}

func TestUsers(t *testing.T) {
	ts := startServer(t)
	alice := ts.api("POST", "/api/v1/user", `{"name":"alice","displayName":"Alice","email":"a@x","pictureUrl":"http://p"}`)["user"].(object)
	equal(t, "id", alice["id"], any("1"))
	equal(t, "displayName", alice["displayName"], any("Alice"))
	equal(t, "profilePicUrl", alice["profilePicUrl"], any("http://p"))
	ts.refused("POST", "/api/v1/user", `{"name":"alice"}`, 500, "UNIQUE constraint failed: users.name")
	ts.refused("POST", "/api/v1/user", `{"name":5}`, 400, "")
	ts.refused("POST", "/api/v1/user", `{bad`, 400, "invalid character")
	ts.api("POST", "/api/v1/user", `{"name":"bob"}`)
	for query, found := range map[string]int{"": 2, "?name=bob": 1, "?name=x": 0, "?id=1": 1, "?email=a@x": 1, "?nosuch=1": 2} {
		equal(t, "users with "+query, len(ts.api("GET", "/api/v1/user"+query, "")["users"].([]any)), found)
	}
	ts.refused("GET", "/api/v1/user?id=x", "", 400, `parsing field "id"`)
	ts.api("POST", "/api/v1/preauthkey", `{"user":"2","expiration":"`+farFuture+`"}`)
	ts.api("DELETE", "/api/v1/user/2", "")
	equal(t, "keys of a deleted user", len(ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any)), 0)
	ts.refused("DELETE", "/api/v1/user/2", "", 500, "user not found")
}

func TestRouting(t *testing.T) {
	ts := startServer(t)
	ts.refused("GET", "/api/v1/nosuch", "", 404, "Not Found")
	ts.refused("PUT", "/api/v1/node", "", 501, "Method Not Allowed")
	ts.refused("POST", "/api/v1/user", strings.Repeat(" ", maxAPIBody+1), 429, "larger than max")
	equal(t, "health", ts.api("GET", "/api/v1/health", "")["databaseConnectivity"], any(true))
	for path, contentType := range map[string]string{"/health": "application/health+json; charset=utf-8", "/version": "application/json"} {
		response := must(http.Get(ts.url + path))
		var body object
		if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		equal(t, path, response.Header.Get("Content-Type"), contentType)
		if path == "/version" {
			equal(t, "version", body["version"], any(Version))
		} else {
			equal(t, "status", body["status"], any("pass"))
		}
	}
}

func TestTimestamps(t *testing.T) {
	for text, want := range map[string]string{
		"2030-01-01T00:00:00Z":           `"2030-01-01T00:00:00Z"`,
		"2030-01-01T00:00:00.1Z":         `"2030-01-01T00:00:00.100Z"`,
		"2030-01-01T00:00:00.12345Z":     `"2030-01-01T00:00:00.123450Z"`,
		"2030-01-01T00:00:00.123456789Z": `"2030-01-01T00:00:00.123456789Z"`,
		"2030-01-01T00:00:00.000001Z":    `"2030-01-01T00:00:00.000001Z"`,
	} {
		equal(t, text, string(must(json.Marshal(timestamp(must(time.Parse(time.RFC3339, text)))))), want)
	}
	equal(t, "never", string(must(json.Marshal(timestamp{}))), `"0001-01-01T00:00:00Z"`)
}
