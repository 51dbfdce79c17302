// Command apifwd is a chained CNI plugin that gives a pod one door to the API server on a machine where
// everything listens on loopback only and no kube-proxy runs.
//
// ADD opens a listener on 127.0.0.1:PORT inside the pod's network namespace and hands it to a
// background copy of itself, which carries each connection to 127.0.0.1:PORT of the node. That copy
// ends on DEL, or when the namespace's file is gone.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// The first argument that makes this the background copy; CNI calls plugins without arguments.
	serveArgument = "serve"
	// The first argument that removes a bridge, for machines without the program ip.
	removeArgument = "remove-bridge"
	// The listener's number in the background copy: the first after the standard three.
	listenerFile = 3
	// How long the background copy lets a half-open connection or a dead namespace be.
	poll = time.Second
)

// config is what the network's configuration says about this plugin.
type config struct {
	CNIVersion string          `json:"cniVersion"`
	PrevResult json.RawMessage `json:"prevResult"`
	Port       int             `json:"port"`
	StateDir   string          `json:"stateDir"`
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == serveArgument {
		if err := serve(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "apifwd:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == removeArgument {
		if err := removeBridge(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "apifwd:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv("CNI_COMMAND") == "VERSION" {
		fmt.Println(`{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}`)
		return
	}
	var conf config
	err := json.NewDecoder(os.Stdin).Decode(&conf)
	if err != nil {
		err = fmt.Errorf("the network configuration on stdin: %w", err)
	} else {
		err = command(os.Getenv("CNI_COMMAND"), conf)
	}
	if err != nil {
		answer := map[string]any{"cniVersion": conf.CNIVersion, "code": 100, "msg": "apifwd: " + err.Error()}
		_ = json.NewEncoder(os.Stdout).Encode(answer)
		os.Exit(1)
	}
}

func command(name string, conf config) error {
	if conf.Port < 1 || conf.Port > 65535 {
		return fmt.Errorf("port %d in the network configuration is not a port", conf.Port)
	}
	if conf.StateDir == "" {
		return errors.New("stateDir is missing in the network configuration")
	}
	state := filepath.Join(conf.StateDir, filepath.Base(os.Getenv("CNI_CONTAINERID"))+"-"+filepath.Base(os.Getenv("CNI_IFNAME")))
	switch name {
	case "ADD":
		if err := add(conf, state, os.Getenv("CNI_NETNS")); err != nil {
			return err
		}
		_, err := os.Stdout.Write(conf.PrevResult)
		return err
	case "DEL":
		return stop(state)
	case "CHECK":
		return check(conf, state, os.Getenv("CNI_NETNS"))
	case "STATUS", "GC":
		return nil
	default:
		return fmt.Errorf("CNI_COMMAND %q is unknown", name)
	}
}

// within runs f in the network namespace at path. The thread is not used again when it can't be put
// back: a locked goroutine that ends takes its thread along.
func within(path string, f func() error) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		failed <- func() error {
			own, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer own.Close()
			other, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("the pod's network namespace: %w", err)
			}
			defer other.Close()
			if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering %s: %w", path, err)
			}
			result := f()
			if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
				return errors.Join(result, fmt.Errorf("leaving %s: %w", path, err))
			}
			runtime.UnlockOSThread()
			return result
		}()
	}()
	return <-failed
}

func add(conf config, state, namespace string) error {
	// A second ADD for the same interface replaces the first.
	if err := stop(state); err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(conf.Port))
	var listener *os.File
	err := within(namespace, func() error {
		l, err := net.Listen("tcp4", address)
		if err != nil {
			return err
		}
		defer l.Close()
		listener, err = l.(*net.TCPListener).File()
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(state), 0o755); err != nil {
		return err
	}
	background := exec.Command(self, serveArgument, namespace, address)
	background.ExtraFiles = []*os.File{listener}
	background.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := background.Start(); err != nil {
		return fmt.Errorf("starting the forwarder: %w", err)
	}
	started, err := startTime(background.Process.Pid)
	if err == nil {
		err = os.WriteFile(state, []byte(fmt.Sprintf("%d %s\n", background.Process.Pid, started)), 0o644)
	}
	if err != nil {
		_ = background.Process.Kill()
		return fmt.Errorf("noting the forwarder's process: %w", err)
	}
	return background.Process.Release()
}

// startTime is field 22 of /proc/PID/stat: with it a process id can't be mistaken for a later one.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is short", pid)
	}
	return fields[19], nil
}

// running returns the forwarder's process id, or 0 where it has ended.
func running(state string) (int, error) {
	text, err := os.ReadFile(state)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0, nil
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0, nil
	}
	if started, err := startTime(pid); err != nil || started != fields[1] {
		return 0, nil
	}
	return pid, nil
}

// stop ends the forwarder; that there is none is no error, as CNI asks of DEL.
func stop(state string) error {
	pid, err := running(state)
	if err != nil {
		return err
	}
	if pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending the forwarder %d: %w", pid, err)
		}
	}
	if err := os.Remove(state); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func check(conf config, state, namespace string) error {
	pid, err := running(state)
	if err != nil {
		return err
	}
	if pid == 0 {
		return errors.New("the forwarder has ended")
	}
	return within(namespace, func() error {
		c, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(conf.Port)), 5*time.Second)
		if err != nil {
			return fmt.Errorf("the forwarder does not answer: %w", err)
		}
		return c.Close()
	})
}

// serve carries connections until the namespace's file is gone or it is told to end.
func serve(namespace, target string) error {
	file := os.NewFile(listenerFile, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("the listener that ADD handed over: %w", err)
	}
	file.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		tick := time.NewTicker(poll)
		for {
			select {
			case <-ended:
				os.Exit(0)
			case <-tick.C:
				if _, err := os.Stat(namespace); errors.Is(err, os.ErrNotExist) {
					os.Exit(0)
				}
			}
		}
	}()
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of file descriptors, for instance: the listener is still good.
			time.Sleep(poll / 10)
			continue
		}
		go carry(client.(*net.TCPConn), target)
	}
}

// carry joins two connections; each direction's end is passed on by itself, and an error ends both.
func carry(client *net.TCPConn, target string) {
	defer client.Close()
	c, err := net.DialTimeout("tcp4", target, 10*time.Second)
	if err != nil {
		// A reset says "nobody there", where a plain close would look like an answer.
		_ = client.SetLinger(0)
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{}, 2)
	pipe := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			client.Close()
			server.Close()
		} else {
			_ = to.CloseWrite()
		}
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	<-done
	<-done
}

// removeBridge takes a bridge away; that there is none is no error.
func removeBridge(name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	// A bridge that is up can't be removed; no flags means down.
	request.SetUint16(0)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("setting %s down: %w", name, err)
	}
	bytes := append([]byte(name), 0)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCBRDELBR, uintptr(unsafe.Pointer(&bytes[0]))); errno != 0 {
		return fmt.Errorf("removing %s: %w", name, errno)
	}
	return nil
}
