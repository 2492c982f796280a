import CLinux
import Glibc
import Testing
import VFIOUserMessages

/// `martlet serve` as an operator meets it: wrong input gets one line and an exit code, and nothing is left behind.
@Suite(.serialized) struct ServeCommandTests {
  /// Runs `martlet serve virtio-net` to its end.
  func serve(_ arguments: [String]) throws -> (errors: String, code: Int32) {
    var pipes: [Int32] = [-1, -1]
    #expect(pipe(&pipes) == 0)
    for descriptor in pipes { _ = linux_fcntl(descriptor, F_SETFD, Int(FD_CLOEXEC)) }
    defer { close(pipes[0]) }
    let process = try ServedProcess.spawn(
      ["serve", "virtio-net"] + arguments, output: 1, errors: pipes[1], closing: pipes)
    close(pipes[1])
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while case let count = read(pipes[0], &chunk, chunk.count), count > 0 {
      text += chunk[0..<count]
    }
    var status: Int32 = 0
    waitpid(process, &status, 0)
    return (String(decoding: text, as: UTF8.self), status & 0x7f == 0 ? status >> 8 & 0xff : -1)
  }

  @Test(
    arguments: [
      ["--wire", "none"], ["--socket", "PATH"],
      ["--socket", "PATH", "--wire", "none", "--mac", "52:54"],
      ["--socket", "PATH", "--wire", "none", "--mac", "01:00:5e:00:00:01"],
      ["--socket", "PATH", "--wire", "none", "--mac", "00:00:00:00:00:00"],
      ["--socket", "PATH", "--wire", "none", "--queues", "0"],
      ["--socket", "PATH", "--wire", "none", "--mtu", "67"],
      ["--socket", "PATH", "--wire", "ether"], ["--socket", "PATH", "--wire", "tap:"],
      ["--socket", "PATH", "--wire", "tap:a-name-of-16-long"],
      ["--socket", "PATH", "--wire", "udp:1"], ["--socket", "PATH", "--wire", "udp:1,8.8.8.8:53"],
      ["--socket", "PATH", "--wire", "pcap:/nowhere/x"],
      ["--socket", "PATH", "--wire", "pcap:/tmp/x,/nowhere"],
      ["--socket", "PATH", "--tap-fd", "0"], ["--socket", "/nowhere/x", "--wire", "none"],
      ["--socket", "/tmp/" + String(repeating: "x", count: 120), "--wire", "none"],
      ["--listen-fd", "0", "--wire", "none"], ["--listen-fd", "99", "--wire", "none"],
      ["--socket", "/dev/null", "--wire", "none"],
    ] as [[String]])
  func wrongInputGetsOneLineAndACode(arguments: [String]) throws {
    let path = "/tmp/martlet-wrong-\(getpid()).sock"
    let result = try serve(arguments.map { $0 == "PATH" ? path : $0 })
    #expect(result.code == 64 || result.code == 1)
    #expect(result.errors.hasPrefix("martlet serve: "))
    #expect(result.errors.filter { $0 == "\n" }.count == 1)
    #expect(access(path, F_OK) != 0)
    #expect(access("/dev/null", F_OK) == 0)
  }

  @Test func aLivingServerKeepsItsSocketAndADeadOneLosesIt() throws {
    let server = try ServedProcess()
    let second = try serve(["--socket", server.path, "--wire", "none"])
    #expect(second.code == 1 && second.errors.contains("already listens"))
    let client = try server.connect()
    try client.negotiate()
    server.kill()
    #expect(access(server.path, F_OK) == 0)
    let next = try ServedProcess(path: server.path)
    try next.connect().negotiate()
    #expect(next.end().code == 0)
    #expect(access(server.path, F_OK) != 0)
  }
}
