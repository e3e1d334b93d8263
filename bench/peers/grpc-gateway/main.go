// grpc-gateway, as its documents put it together: a gateway in Go, for comparison.
//
// Has: one connection to each backend, round robin, a deadline, retries of what never left, the HTTP status of a failed
// call. Has not: metrics, logs, a retry policy, limits, health checks.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/encoding/protojson"

	"tandem/bench/grpc-gateway/helloworld"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	backends := manual.NewBuilderWithScheme("backends")
	var addresses []resolver.Address
	for _, address := range strings.Split(os.Getenv("BACKENDS"), ",") {
		addresses = append(addresses, resolver.Address{Addr: address})
	}
	backends.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("backends:///greeter",
		grpc.WithResolvers(backends),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()

	runtime.DefaultContextTimeout = 2 * time.Second
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}))
	if err := helloworld.RegisterGreeterHandler(ctx, mux, conn); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)
	go answerUsage(stop)
	server := &http.Server{Handler: mux}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// answerUsage tells the parent, a Node process, what was used so far: lines of JSON over the channel that it has opened.
// The parent's end is the program's, too.
func answerUsage(stop func()) {
	fd, err := strconv.Atoi(os.Getenv("NODE_CHANNEL_FD"))
	if err != nil {
		return
	}
	channel := os.NewFile(uintptr(fd), "channel")
	defer stop()
	lines := bufio.NewScanner(channel)
	for lines.Scan() {
		if lines.Text() == `"usage"` {
			if err := writeUsage(channel); err != nil {
				return
			}
		}
	}
}

func writeUsage(to io.Writer) error {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	return json.NewEncoder(to).Encode(map[string]int64{
		"cpuUs":    time.Duration(used.Utime.Nano() + used.Stime.Nano()).Microseconds(),
		"rssBytes": rssBytes(used),
	})
}

// rssBytes is what is resident now; where there is no /proc, the most that has been.
func rssBytes(used syscall.Rusage) int64 {
	var size, resident int64
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(statm), &size, &resident)
	}
	if err != nil {
		return used.Maxrss
	}
	return resident * int64(os.Getpagesize())
}
