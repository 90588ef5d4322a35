package main

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tailscale.com/net/stun"
)

// devcontrol runs this test binary as the command.
func devcontrol(t *testing.T, args ...string) *exec.Cmd {
	command := exec.CommandContext(t.Context(), must(os.Executable()), args...)
	command.Env = append(os.Environ(), "DEVCONTROL_TEST_MAIN=1")
	return command
}

type process struct {
	*exec.Cmd
	url      string
	stunPort string
	socket   string
	output   string
}

// serveProcess starts the command and returns when it serves.
func serveProcess(t *testing.T, dir string, files []*os.File, args ...string) *process {
	t.Helper()
	p := &process{socket: filepath.Join(dir, "devcontrol.sock")}
	p.Cmd = devcontrol(t, append([]string{"serve", "--state-dir", dir}, args...)...)
	p.ExtraFiles = files
	stderr := must(p.StderrPipe())
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill() })
	serving := regexp.MustCompile(`serving on (\S+), .*STUN on port (\d+)`)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.output += lines.Text() + "\n"
		if found := serving.FindStringSubmatch(lines.Text()); found != nil {
			p.url, p.stunPort = found[1], found[2]
			go func() {
				for lines.Scan() {
				}
			}()
			return p
		}
	}
	t.Fatalf("it does not serve: %s", p.output)
	return nil
}

// shortDir is a directory for sockets, whose paths have to be short.
func shortDir(t *testing.T) string {
	dir := must(os.MkdirTemp("/tmp", "ec-"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestServeAndAPIKeysCreate(t *testing.T) {
	dir := shortDir(t)
	p := serveProcess(t, dir, nil, "--debug-listen", "unix:"+filepath.Join(dir, "debug.sock"))
	if !strings.Contains(p.output, "NOT Headscale") {
		t.Errorf("it does not say what it is: %s", p.output)
	}
	for name, mode := range map[string]os.FileMode{"devcontrol.sock": 0o600, "debug.sock": 0o600, "state.json": 0o600} {
		equal(t, "mode of "+name, must(os.Stat(filepath.Join(dir, name))).Mode().Perm(), mode)
	}
	var apiKey string
	output := must(devcontrol(t, "apikeys", "create", "--unix-socket", p.socket, "-e", "87600h", "-o", "json").Output())
	if err := json.Unmarshal(output, &apiKey); err != nil {
		t.Fatalf("%s: %v", output, err)
	}
	get := func() int {
		request := must(http.NewRequest("GET", p.url+"/api/v1/apikey", nil))
		request.Header.Set("Authorization", "Bearer "+apiKey)
		response := must(http.DefaultClient.Do(request))
		response.Body.Close()
		return response.StatusCode
	}
	equal(t, "with the key", get(), 200)
	if other, err := devcontrol(t, "serve", "--state-dir", dir).CombinedOutput(); err == nil || !strings.Contains(string(other), "another devcontrol") {
		t.Errorf("a second server on the directory: %v %s", err, other)
	}

	begin := time.Now()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %s to end", took)
	}
	if output, err := devcontrol(t, "apikeys", "create", "--unix-socket", p.socket).CombinedOutput(); err == nil {
		t.Errorf("a key from no server: %s", output)
	}
	p = serveProcess(t, dir, nil)
	equal(t, "with the key after a restart", get(), 200)
	p.Process.Kill()
	p.Wait()
	p = serveProcess(t, dir, nil) // over the socket that the dead one left
	equal(t, "with the key after a crash", get(), 200)
}

func TestServeEndsWithItsParent(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := serveProcess(t, shortDir(t), []*os.File{reader}, "--parent-death-fd", "3")
	reader.Close()
	writer.Close()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSTUNAnswersOnIPv4AndIPv6(t *testing.T) {
	p := serveProcess(t, shortDir(t), nil)
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("udp", net.JoinHostPort(host, p.stunPort))
		if err != nil {
			t.Skipf("no %s on this machine: %v", host, err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		id := stun.NewTxID()
		must(conn.Write(stun.Request(id)))
		buffer := make([]byte, 1500)
		length := must(conn.Read(buffer))
		answered, address, err := stun.ParseResponse(buffer[:length])
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "transaction", answered, id)
		equal(t, "address", address, netip.MustParseAddrPort(conn.LocalAddr().String()))
	}
}

func TestWhereItMayListen(t *testing.T) {
	for _, test := range []struct {
		address      string
		allowPrivate bool
		message      string
	}{
		{"0.0.0.0:0", true, "devcontrol is for development"},
		{"8.8.8.8:0", true, "devcontrol is for development"},
		{"192.168.1.1:0", false, "--allow-private"},
		{"[::1]:0", true, "IPv4 address and a port"},
		{"localhost:80", true, "IPv4 address and a port"},
		{"127.0.0.1", true, "IPv4 address and a port"},
	} {
		if _, err := listenHTTP(test.address, test.allowPrivate); err == nil || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s: %v", test.address, err)
		}
	}
	for _, address := range []string{"0.0.0.0:0", "192.168.1.1:0", "localhost:0", "unix"} {
		if _, err := listenDebug(address); err == nil {
			t.Errorf("the debug listener took %s", address)
		}
	}
	if _, err := listenSocket("/tmp/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("a long path: %v", err)
	}
	file := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
}

func TestServeFlags(t *testing.T) {
	for args, message := range map[string]string{
		"":                                     "--state-dir",
		"--state-dir x y":                      "is no flag",
		"--state-dir x --prefix-v4 10.0.0.0/8": "is not a part of",
		"--state-dir x --prefix-v4 100.64.0.0/31": "room for nodes",
		"--state-dir x --stun-listen 70000":       "no port",
		"--state-dir x --nosuch":                  "not defined",
	} {
		if _, err := parseServeFlags(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%q: %v", args, err)
		}
	}
	for _, args := range []string{"nosuch", "apikeys list", "apikeys create", "apikeys create --unix-socket x -e never", "apikeys create --unix-socket x -o yaml"} {
		if err := run(strings.Fields(args)); err == nil {
			t.Errorf("%q succeeded", args)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1y": 365 * 24 * time.Hour, "87600h": 87600 * time.Hour, "1h30m": 90 * time.Minute} {
		equal(t, text, must(parseDuration(text)), want)
	}
	for _, text := range []string{"", "0", "-1h", "d", "-1d", "99999999d", "x"} {
		if _, err := parseDuration(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
