import Glibc
import Supervisor

/// DPDK, where it is installed: its `dpdk-testpmd`, and the project's own programs on top of it (Benchmarks/Peers). No PCI
/// device is ever touched, and nothing is left on the machine: memory is of the process alone (`--in-memory`).
public struct DPDK {
  static let testpmd = "/usr/bin/dpdk-testpmd"
  let programs: String

  /// - Parameter programs: the folder in which `make peers` puts the programs.
  public init(programs: String = ".build/peers") { self.programs = programs }

  public static let remedy =
    "not installed: apt-get install dpdk-dev libdpdk-dev, then make peers"

  /// Whether all of it can be run here.
  public var isInstalled: Bool {
    let paths: [String] = [Self.testpmd, "\(programs)/pools", "\(programs)/port"]
    return paths.allSatisfy { path in
      access(path, X_OK) == 0
    }
  }

  /// MiB of hugepages that one process takes.
  static let megabytes = 128

  /// The environment's arguments: the cores of main and worker thread, the virtual device.
  private static func environment(_ cores: String, _ device: String?) -> [String] {
    [
      "--lcores", cores, "-n", "1", "-m", "\(megabytes)", "--no-pci", "--in-memory",
      "--single-file-segments", "--no-telemetry", "--log-level", "error",
    ] + (device.map { ["--vdev", $0] } ?? [])
  }

  /// `pools.c`: pools on core 0, the ring from there to core 1.
  func startPools() throws -> LineProcess {
    try start("pools", Self.environment("0@0,1@1", nil))
  }

  /// `port.c`, on core 1.
  func startPort(_ device: String) throws -> LineProcess {
    try start("port", Self.environment("0@1", device))
  }

  private func start(_ name: String, _ arguments: [String]) throws -> LineProcess {
    let process = try LineProcess(
      name: name, program: programs + "/" + name, arguments: arguments)
    _ = try process.line(withinMilliseconds: 15_000) { $0 == "ready" }
    return process
  }

  /// testpmd whose main and worker thread share a core.
  /// - Parameters:
  ///   - ringSize: descriptors of each of its rings; 0 for what is usual.
  ///   - sendsPieces: whether the packets that it makes may lie in several buffers.
  func startTestPMD(
    core: Int, device: String, ringSize: Int = 0, sendsPieces: Bool = false
  ) throws -> TestPMD {
    let environment = Self.environment("0@\(core),1@\(core)", device)
    // Its answers would stay in a buffer where it does not write to a terminal.
    let process = try LineProcess(
      name: "dpdk-testpmd", program: "/usr/bin/stdbuf",
      arguments: ["-oL", Self.testpmd] + environment + [
        "--", "-i", "--nb-cores=1", "--rxq=1", "--txq=1", "--total-num-mbufs=16384",
        "--disable-link-check", "--no-mlockall",
      ] + (ringSize > 0 ? ["--rxd=\(ringSize)", "--txd=\(ringSize)"] : [])
        // RTE_ETH_TX_OFFLOAD_MULTI_SEGS.
        + (sendsPieces ? ["--tx-offloads=0x8000"] : []))
    return try TestPMD(process)
  }
}
