import Supervisor

/// Our driver in a process of its own, on a back-end of DPDK's.
final class OwnFront {
  private let back: TestPMD
  private let front: LineProcess

  /// - Returns: nil where the driver does not use such rings.
  init?(
    _ dpdk: DPDK, _ scratch: ScratchFolder, _ isPacked: Bool, _ isMergeable: Bool,
    ringSize: Int = 256, sendsPieces: Bool = false
  ) throws {
    let socket = scratch.socket("ours")
    back = try dpdk.startTestPMD(
      core: 0, device: "net_vhost0,iface=\(socket),queues=1",
      sendsPieces: sendsPieces)
    front = try LineProcess(
      name: "the front-end", program: Programs.martlet,
      arguments: ["bench-end", "driver", "--socket", socket, "--ring-size", "\(ringSize)"]
        + (isPacked ? ["--packed"] : []) + (isMergeable ? [] : ["--unmerged"]))
    let answer = try front.line { $0 == "ready" || $0.hasPrefix("unsupported") }
    if answer != "ready" { return nil }
  }

  func set(burst: Int, bytes: Int) throws {
    try back.set(burst: burst, bytes: bytes)
    front.send("burst \(burst) 0")
    front.send("size \(bytes) 0")
  }

  func receive(_ milliseconds: Int) throws -> Sample {
    try run("rx 1 \(milliseconds)", .transmit, milliseconds)
  }

  func forward(_ milliseconds: Int) throws -> Sample {
    try run("io 1 \(milliseconds)", .echo, firstBursts: 4, milliseconds)
  }

  func ping(_ milliseconds: Int) throws -> Sample {
    try set(burst: 1, bytes: 64)
    return try run("ping 1 \(milliseconds)", .echo, milliseconds)
  }

  private func run(
    _ command: String, _ mode: TestPMD.Mode, firstBursts: Int = 0, _ milliseconds: Int
  ) throws -> Sample {
    if mode == .echo && firstBursts == 0 {
      try back.start(mode)
      front.send(command)
    } else {
      // The front-end first drops what is left of the run before.
      front.send(command)
      pause(milliseconds: 30)
      try back.start(mode, firstBursts: firstBursts)
    }
    defer { try? back.stop() }
    let before = try back.readCounters()
    let line = try front.line(withinMilliseconds: milliseconds + 8000) { results($0) != nil }
    let after = try back.readCounters()
    let values = results(line) ?? []
    return Sample(
      Array(values.dropLast()), cpuShare: min(values.last ?? 0, after.share(since: before)))
  }

  /// Counted where packets arrive.
  func transmit(_ milliseconds: Int) throws -> Sample {
    try back.start(.receive)
    defer { try? back.stop() }
    front.send("tx 1 \(milliseconds + 300)")
    pause(milliseconds: 100)
    let before = try back.readCounters()
    pause(milliseconds: milliseconds)
    let after = try back.readCounters()
    let line = try front.line(withinMilliseconds: milliseconds + 8000) { results($0) != nil }
    return Sample(
      [(after.received - before.received) * 1000 / Double(after.nanoseconds - before.nanoseconds)],
      cpuShare: min((results(line) ?? []).last ?? 0, after.share(since: before)))
  }
}

/// DPDK's virtio-user in a testpmd, on a back-end of its own.
final class VirtioUser {
  private let back: TestPMD
  private let front: TestPMD

  init(
    _ dpdk: DPDK, _ scratch: ScratchFolder, _ options: String, ringSize: Int = 0,
    sendsPieces: Bool = false
  ) throws {
    let socket = scratch.socket("peer")
    back = try dpdk.startTestPMD(
      core: 0, device: "net_vhost0,iface=\(socket),queues=1",
      sendsPieces: sendsPieces)
    front = try dpdk.startTestPMD(
      core: 1, device: "net_virtio_user0,path=\(socket),queues=1\(options)", ringSize: ringSize)
  }

  func set(burst: Int, bytes: Int) throws {
    try back.set(burst: burst, bytes: bytes)
    try front.set(burst: burst, bytes: bytes)
  }

  func receive(_ milliseconds: Int) throws -> Sample {
    try PairOfTestPMD(source: back, sink: front).rate(milliseconds: milliseconds)
  }

  func transmit(_ milliseconds: Int) throws -> Sample {
    try PairOfTestPMD(source: front, sink: back).rate(milliseconds: milliseconds)
  }

  func forward(_ milliseconds: Int) throws -> Sample {
    // What is left of the run before is dropped.
    try front.start(.receive)
    pause(milliseconds: 30)
    try front.stop()
    try front.start(.echo)
    try back.start(.echo, firstBursts: 4)
    defer {
      try? back.stop()
      try? front.stop()
    }
    pause(milliseconds: 80)
    let backBefore = try back.readCounters()
    let before = try front.readCounters()
    pause(milliseconds: milliseconds)
    let after = try front.readCounters()
    let backAfter = try back.readCounters()
    return Sample(
      [(after.received - before.received) * 1000 / Double(after.nanoseconds - before.nanoseconds)],
      cpuShare: min(after.share(since: before), backAfter.share(since: backBefore)))
  }
}
