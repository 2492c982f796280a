import Channel

/// One thread that turns over several queue pairs, each with device, host and instance of its own, as
/// ``HostReceiveLoop`` has them. Only the first of them get packets.
public struct HostPairsLoop: PathLoop, ~Copyable {
  // Invariant: `pairs` initialised elements until deinit.
  private let hosts: UnsafeMutablePointer<HostOnMemory>
  private let pairs: Int
  private let busy: Int
  private var sum: UInt64 = 0

  /// - Parameters:
  ///   - pairs: at least 1.
  ///   - busy: pairs that get packets, 1 to `pairs`.
  public init(_ format: RingFormat, pairs: Int, busy: Int) throws {
    precondition(pairs > 0 && (1...pairs).contains(busy))
    hosts = .allocate(capacity: pairs)
    self.pairs = pairs
    self.busy = busy
    for index in 0..<pairs {
      do {
        (hosts + index).initialize(to: try HostOnMemory(format))
      } catch {
        hosts.deinitialize(count: index)
        hosts.deallocate()
        throw error
      }
    }
  }

  deinit {
    hosts.deinitialize(count: pairs)
    hosts.deallocate()
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    var done = 0
    while done < bursts {
      for index in 0..<pairs {
        if index < busy {
          hosts[index].device.fill(Self.burstSize)
          done += 1
        }
        _ = try hosts[index].path.turn()
        if index < busy { packets += try hosts[index].takeReceived(&sum) }
      }
    }
    return packets
  }
}
