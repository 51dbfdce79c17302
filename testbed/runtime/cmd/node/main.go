// Command node is containerd, ctr and crirun in one binary, chosen by the name it is called by or by
// its first argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	containerd "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
)

// programs maps a name to what runs; each sees os.Args as if it were a binary of its own.
var programs = map[string]func() error{
	"containerd": func() error { return containerd.App().Run(os.Args) },
	"ctr":        func() error { return ctr.New().Run(os.Args) },
	"crirun":     runOnce,
}

func main() {
	name := filepath.Base(os.Args[0])
	run, known := programs[name]
	if !known && len(os.Args) > 1 {
		name = os.Args[1]
		run, known = programs[name]
		os.Args = os.Args[1:]
	}
	if !known {
		fmt.Fprintf(os.Stderr, "error: node does not know the program %q; it holds containerd, crirun, ctr\n", name)
		os.Exit(64)
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		os.Exit(1)
	}
}
