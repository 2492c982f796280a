/// One testpmd that makes packets and one that takes them.
struct PairOfTestPMD {
  let source: TestPMD
  let sink: TestPMD

  /// Millions of packets a second that arrive.
  func rate(milliseconds: Int) throws -> Sample {
    try sink.start(.receive)
    try source.start(.transmit)
    defer {
      try? source.stop()
      try? sink.stop()
    }
    pause(milliseconds: 100)
    let sourceBefore = try source.readCounters()
    let before = try sink.readCounters()
    pause(milliseconds: milliseconds)
    let after = try sink.readCounters()
    let sourceAfter = try source.readCounters()
    return Sample(
      [(after.received - before.received) * 1000 / Double(after.nanoseconds - before.nanoseconds)],
      cpuShare: min(after.share(since: before), sourceAfter.share(since: sourceBefore)))
  }
}

/// `port.c` and a testpmd that sends back what it gets.
struct PingPair {
  let echo: TestPMD
  let port: LineProcess

  /// Round trips in nanoseconds: p50, p99, p99.9, p99.99.
  func ping(burst: Int, milliseconds: Int) throws -> Sample {
    try echo.start(.echo)
    defer { try? echo.stop() }
    let before = try echo.readCounters()
    port.send("ping \(burst) \(milliseconds)")
    let line = try port.line(withinMilliseconds: milliseconds + 5000) {
      $0 == "lost" || results($0) != nil
    }
    let after = try echo.readCounters()
    guard let values = results(line), values.count == 5 else {
      return Sample([0, 0, 0, 0], cpuShare: 0)
    }
    return Sample(
      Array(values[..<4]), cpuShare: min(values[4], after.share(since: before)))
  }
}

extension TestPMD.Counters {
  func share(since before: TestPMD.Counters) -> Double {
    Double(cpuNanoseconds - before.cpuNanoseconds)
      / Double(max(1, nanoseconds - before.nanoseconds))
  }
}
