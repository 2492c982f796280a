package main

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

const largest = 1 << 40

// `/` says what it is, `/bytes/N` streams N bytes that anyone can compute: PatternContent.swift says how.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/" {
			http.Error(response, "there are / and /bytes/N", http.StatusNotFound)
			return
		}
		fmt.Fprintln(response, "Martlet: a driver in user space, and gVisor behind it. Try /bytes/1000000")
	})
	mux.HandleFunc("/bytes/", func(response http.ResponseWriter, request *http.Request) {
		count, err := strconv.ParseUint(strings.TrimPrefix(request.URL.Path, "/bytes/"), 10, 64)
		if err != nil || count > largest {
			http.Error(response, "there are / and /bytes/N", http.StatusNotFound)
			return
		}
		response.Header().Set("Content-Type", "application/octet-stream")
		response.Header().Set("Content-Length", strconv.FormatUint(count, 10))
		if request.Method != http.MethodHead {
			stream(response, count)
		}
	})
	return mux
}

func stream(response http.ResponseWriter, count uint64) {
	piece := make([]byte, 64<<10)
	for offset := uint64(0); offset < count; offset += uint64(len(piece)) {
		for at := 0; at < len(piece); at += 8 {
			word := (offset + uint64(at)) / 8 * 0x9e3779b97f4a7c15
			binary.LittleEndian.PutUint64(piece[at:], word)
		}
		left := count - offset
		if left > uint64(len(piece)) {
			left = uint64(len(piece))
		}
		if _, err := response.Write(piece[:left]); err != nil {
			return
		}
	}
}
