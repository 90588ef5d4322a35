// Command devcontrol is a development control server: unmodified tailscaled joins it, and it speaks the part of
// Headscale's v1 REST API that elizacloud uses, with Headscale's quirks and with faults that tests can switch on.
//
// It is not Headscale. It exists for machines that can reach package registries but not Headscale's releases, and for
// tests that need a control server to misbehave. README.md has the command lines, the calls and the faults.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Version is what /version answers: the Headscale that is imitated, then our own number. Clients read both from it.
const Version = "v0.29.2+devcontrol.1"

const usage = `devcontrol ` + Version + `: a development control server for elizacloud. It is not Headscale.

  devcontrol serve --state-dir DIR [flags]                            run the server; "serve -h" lists the flags
  devcontrol apikeys create --unix-socket PATH [-e DURATION] [-o json]  an API key from the running server
  devcontrol version
`

func main() {
	syscall.Umask(0o077) // state, keys and sockets are for the owner only, whatever the caller's umask
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "devcontrol:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "serve":
		return ignoreHelp(serveCommand(args[1:]))
	case "apikeys":
		return ignoreHelp(apiKeysCommand(args[1:], os.Stdout))
	case "version", "--version":
		fmt.Println("devcontrol", Version)
		return nil
	case "", "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("cannot run %q: no such command; the commands are serve, apikeys create and version", command)
}

func ignoreHelp(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

// parseFlags is set.Parse, but says what is wrong in one sentence and shows all flags only to those who ask.
func parseFlags(set *flag.FlagSet, args []string) error {
	set.SetOutput(io.Discard)
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		set.SetOutput(os.Stdout)
		fmt.Println("Usage of", set.Name()+":")
		set.PrintDefaults()
	} else if err != nil {
		err = fmt.Errorf("cannot run %s: %w; -h lists the flags", set.Name(), err)
	}
	return err
}
