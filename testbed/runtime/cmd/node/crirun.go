package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// list collects a flag that may be given more than once.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// runOnce runs one container through the CRI, as the kubelet would, prints what it wrote and ends
// with its exit status. It is how a test hands a CDI device to a container without a device plugin.
func runOnce() error {
	flags := flag.NewFlagSet("crirun", flag.ExitOnError)
	socket := flags.String("socket", "/run/containerd/containerd.sock", "the runtime's socket")
	image := flags.String("image", "localhost/busybox:1", "image to run; it must be there already")
	parent := flags.String("cgroup-parent", "", "cgroup under which the sandbox is made")
	handler := flags.String("runtime-handler", "", "runtime handler, as a RuntimeClass names it")
	limit := flags.Duration("timeout", time.Minute, "for all of it")
	readOnly := flags.Bool("read-only", false, "the container's root can't be written to")
	user := flags.Int64("user", 0, "user that it runs as")
	var devices, environment, nodes, mounts list
	flags.Var(&devices, "cdi-device", "vendor/class=name; may be repeated")
	flags.Var(&environment, "env", "NAME=VALUE; may be repeated")
	flags.Var(&nodes, "device", "HOST:CONTAINER:PERMISSIONS of a device node; may be repeated")
	flags.Var(&mounts, "mount", "HOST:CONTAINER[:ro]; may be repeated")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: crirun [flags] [--] COMMAND [ARGUMENT...]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		flags.Usage()
		os.Exit(64)
	}
	connection, err := grpc.NewClient("unix://"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()

	logs, err := os.MkdirTemp("", "crirun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(logs)
	id := fmt.Sprintf("crirun-%d-%d", os.Getpid(), time.Now().UnixNano())
	// The node's network: a device has nothing to do with addresses, and CNI may be what is broken.
	network := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}
	sandbox := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: id, Namespace: "crirun", Uid: id},
		LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    *parent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: network},
		},
	}
	container := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"},
		Image:    &cri.ImageSpec{Image: *image},
		Command:  flags.Args(),
		LogPath:  "main.log",
		Linux: &cri.LinuxContainerConfig{
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: network,
				ReadonlyRootfs:   *readOnly,
				RunAsUser:        &cri.Int64Value{Value: *user},
			},
		},
	}
	for _, name := range devices {
		container.CDIDevices = append(container.CDIDevices, &cri.CDIDevice{Name: name})
	}
	for _, text := range nodes {
		part := strings.SplitN(text, ":", 3)
		if len(part) != 3 {
			return fmt.Errorf("--device %s: it is not HOST:CONTAINER:PERMISSIONS", text)
		}
		container.Devices = append(container.Devices, &cri.Device{HostPath: part[0], ContainerPath: part[1], Permissions: part[2]})
	}
	for _, text := range mounts {
		part := strings.SplitN(text, ":", 3)
		if len(part) < 2 {
			return fmt.Errorf("--mount %s: it is not HOST:CONTAINER[:ro]", text)
		}
		readOnly := len(part) == 3 && part[2] == "ro"
		container.Mounts = append(container.Mounts, &cri.Mount{HostPath: part[0], ContainerPath: part[1], Readonly: readOnly})
	}
	for _, pair := range environment {
		key, value, _ := strings.Cut(pair, "=")
		container.Envs = append(container.Envs, &cri.KeyValue{Key: key, Value: []byte(value)})
	}
	code, err := runContainer(ctx, cri.NewRuntimeServiceClient(connection), sandbox, container, *handler)
	if text, readErr := os.ReadFile(filepath.Join(logs, "main.log")); readErr == nil {
		printLog(text)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		os.RemoveAll(logs)
		os.Exit(code)
	}
	return nil
}

func runContainer(ctx context.Context, runtime cri.RuntimeServiceClient, sandbox *cri.PodSandboxConfig, config *cri.ContainerConfig, handler string) (code int, err error) {
	pod, err := runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: handler})
	if err != nil {
		return 0, fmt.Errorf("RunPodSandbox: %w", err)
	}
	defer func() {
		// Cleaned up even where the time is over; what can't be removed is part of the answer.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_, stopErr := runtime.StopPodSandbox(last, &cri.StopPodSandboxRequest{PodSandboxId: pod.PodSandboxId})
		_, removeErr := runtime.RemovePodSandbox(last, &cri.RemovePodSandboxRequest{PodSandboxId: pod.PodSandboxId})
		err = errors.Join(err, stopErr, removeErr)
	}()
	made, err := runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: config, SandboxConfig: sandbox})
	if err != nil {
		return 0, fmt.Errorf("CreateContainer: %w", err)
	}
	if _, err := runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return 0, fmt.Errorf("StartContainer: %w", err)
	}
	for {
		state, err := runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: made.ContainerId})
		if err != nil {
			return 0, fmt.Errorf("ContainerStatus: %w", err)
		}
		if state.Status.State == cri.ContainerState_CONTAINER_EXITED {
			return int(state.Status.ExitCode), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the container still runs: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// printLog prints the messages of a CRI log, whose lines are "TIME STREAM TAG MESSAGE".
func printLog(text []byte) {
	for line := range bytes.Lines(text) {
		fields := bytes.SplitN(line, []byte(" "), 4)
		if len(fields) < 4 {
			continue
		}
		if string(fields[2]) == "P" {
			fields[3] = bytes.TrimSuffix(fields[3], []byte("\n"))
		}
		if string(fields[1]) == "stderr" {
			os.Stderr.Write(fields[3])
		} else {
			os.Stdout.Write(fields[3])
		}
	}
}
