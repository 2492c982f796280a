import Glibc
import Memory
import PCI
import Trace

/// Where the trace of a host's run goes: the pipe that its supervisor reads, since a confined host can write no file.
struct RunRecorder {
  let descriptor: Int32

  func record(_ function: any PCIFunction, rings: DMARange, arena: DMARange) -> RecordingFunction {
    RecordingFunction(
      function,
      memory: [TracedMemory("rings", rings), TracedMemory("arena", arena, watch: .parts)],
      settling: RecordingFunction.hardwareSettling, write: write)
  }

  /// All of a line, however long the reader takes. Where that has gone the host is about to end as well.
  private func write(_ line: String) {
    var line = line
    line.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        let count = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
        if count < 0 && errno == EINTR { continue }
        if count <= 0 { return }
        done += count
      }
    }
  }
}
