import CLinux
import Confinement
import Glibc
import Testing

@testable import Supervisor

/// What a driver host says last is read as a hostile one's.
struct ViolationTests {
  @Test func theCallIsNamedWithItsArguments() throws {
    let call = try #require(
      Violation(
        "arch=c000003e number=00000101 arguments=00000000ffffff9c,0000000000000000,0000000000080000"
      ))
    #expect("\(call)" == "openat(0xffffff9c, 0x0, 0x80000)")
  }

  @Test func aCallOfAnotherTableIsNotTakenForOneOfOurs() throws {
    // 20 is writev(2) here, and getpid(2) there.
    let call = try #require(Violation("arch=40000003 number=00000014 arguments=1,2,3"))
    #expect("\(call)" == "of architecture 0x40000003, getpid(0x1, 0x2, 0x3)")
  }

  @Test func aCallThatDoesNotExistIsANumber() throws {
    #expect(
      "\(try #require(Violation("arch=c000003e number=ffffffff arguments=0,0,0")))".contains(
        "number 4294967295"))
    #expect("\(try #require(Violation("arch=1 number=2 arguments=0,0,0")))".contains("number 2"))
  }

  @Test(arguments: [
    "", "arch=c000003e", "arch=c000003e number=1 arguments=1,2",
    "arch=c000003e number=1 arguments=1,2,3,4",
    "arch=x number=1 arguments=1,2,3", "arch=c000003e number=-1 arguments=1,2,3",
    "arch=1c000003e number=1 arguments=1,2,3", "number=1 arguments=1,2,3", "= = =",
    "arch= number= arguments=",
  ])
  func whatIsNoViolationIsRefused(_ text: String) { #expect(Violation(text) == nil) }

  @Test func descriptorsThatComeOverTheControlSocketAreClosed() throws {
    let socket = try ControlSocket()
    let before = openDescriptors
    var arena = linux_memfd_create("arena", 0)
    defer { close(arena) }
    for _ in 0..<100 {
      #expect(linux_send_descriptors(socket.peer, "news", 4, &arena, 1, 0) == 4)
      let message = try socket.receive(from: "host", waitingFor: "news", milliseconds: 1000)
      #expect(message?.word == "news")
    }
    // Other tests open and close some at the same time.
    #expect(openDescriptors < before + 50)
  }

  private var openDescriptors: Int { (0..<1024).count { fcntl($0, F_GETFD) >= 0 } }
}
