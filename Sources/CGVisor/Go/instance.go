// gVisor's TCP/IP as a library for one Martlet instance: packets come in and go out in bursts, by plain C calls.
// The header says what each function does.
package main

// #cgo CFLAGS: -I${SRCDIR}/../include
// #include "martlet_gvisor.h"
import "C"

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"unsafe"

	"gvisor.dev/gvisor/pkg/bufferv2"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	moreFollows     = C.GVISOR_MORE
	checksumIsValid = C.GVISOR_CHECKED
	queueLength     = 1024
)

// One instance a process.
var (
	link   *checkedLink
	shared *C.struct_gvisor_shared
	event  int
)

func main() {}

// The interface asks for capabilities with each packet that it is given, by one thread: so that a device can say of
// one packet that it has checked its sums, and of the next that it has not.
type checkedLink struct {
	*channel.Endpoint
	isChecked atomic.Bool
}

func (link *checkedLink) Capabilities() stack.LinkEndpointCapabilities {
	if link.isChecked.Load() {
		return stack.CapabilityRXChecksumOffload
	}
	return 0
}

type waker struct{}

// WriteNotify implements channel.Notification: on whichever thread has sent.
func (waker) WriteNotify() {
	atomic.StoreUint32((*uint32)(&shared.waiting), 1)
	if atomic.SwapUint32((*uint32)(&shared.asleep), 0) != 0 {
		one := [8]byte{1}
		syscall.Write(event, one[:])
	}
}

//export martlet_gvisor_start
func martlet_gvisor_start(
	configuration *C.struct_gvisor_configuration, words *C.struct_gvisor_shared, reason *C.char, room C.uint32_t,
) C.int {
	shared = words
	event = int(configuration.event)
	if err := start(configuration); err != nil {
		text := unsafe.Slice((*byte)(unsafe.Pointer(reason)), int(room))
		text[copy(text[:len(text)-1], err.Error())] = 0
		return -1
	}
	return 0
}

func start(c *C.struct_gvisor_configuration) error {
	mac := C.GoBytes(unsafe.Pointer(&c.mac[0]), 6)
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	// The Ethernet layer takes its header off the MTU of the link below.
	link = &checkedLink{Endpoint: channel.New(
		queueLength, uint32(c.mtu)+header.EthernetMinimumSize, tcpip.LinkAddress(mac))}
	link.AddNotify(waker{})
	if err := s.CreateNIC(1, ethernet.New(link)); err != nil {
		return fmt.Errorf("no interface: %s", err)
	}
	address := tcpip.AddressWithPrefix{Address: ip(c.address), PrefixLen: int(c.prefix_length)}
	protocolAddress := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address}
	if err := s.AddProtocolAddress(1, protocolAddress, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("no address: %s", err)
	}
	routes := []tcpip.Route{{Destination: address.Subnet(), NIC: 1}}
	if c.gateway != 0 {
		routes = append(routes, tcpip.Route{
			Destination: header.IPv4EmptySubnet, Gateway: ip(c.gateway), NIC: 1})
	}
	s.SetRouteTable(routes)
	if c.port == 0 {
		return nil
	}
	listener, err := gonet.ListenTCP(
		s, tcpip.FullAddress{NIC: 1, Port: uint16(c.port)}, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("it cannot listen on port %d: %v", uint16(c.port), err)
	}
	go serve(listener)
	return nil
}

func ip(address C.uint32_t) tcpip.Address {
	bytes := make([]byte, 4)
	binary.BigEndian.PutUint32(bytes, uint32(address))
	return tcpip.Address(bytes)
}

func serve(listener net.Listener) {
	server := http.Server{Handler: handler()}
	server.Serve(listener)
}

//export martlet_gvisor_receive
func martlet_gvisor_receive(first *C.struct_gvisor_piece, count C.uint32_t) {
	pieces := unsafe.Slice(first, int(count))
	for len(pieces) > 0 {
		last, size, isValid := 0, 0, false
		for {
			size += int(pieces[last].length)
			isValid = isValid || pieces[last].flags&checksumIsValid != 0
			if pieces[last].flags&moreFollows == 0 || last+1 == len(pieces) {
				break
			}
			last++
		}
		view := bufferv2.NewView(size)
		for _, piece := range pieces[:last+1] {
			view.Write(unsafe.Slice((*byte)(piece.address), int(piece.length)))
		}
		pieces = pieces[last+1:]
		packet := stack.NewPacketBuffer(
			stack.PacketBufferOptions{Payload: bufferv2.MakeWithView(view)})
		link.isChecked.Store(isValid)
		link.InjectInbound(0, packet)
		packet.DecRef()
	}
}

//export martlet_gvisor_send
func martlet_gvisor_send(first *C.struct_gvisor_piece, count C.uint32_t) C.uint32_t {
	rooms := unsafe.Slice(first, int(count))
	for index := range rooms {
		packet := link.Read()
		if packet.IsNil() {
			return C.uint32_t(index)
		}
		room := unsafe.Slice((*byte)(rooms[index].address), int(rooms[index].length))
		at := 0
		if packet.Size() <= len(room) {
			for _, part := range packet.AsSlices() {
				at += copy(room[at:], part)
			}
		}
		rooms[index].length = C.uint32_t(at)
		packet.DecRef()
	}
	return count
}
