import Glibc

/// Where Martlet's own programs are: beside the one that runs.
public enum Programs {
  public static let martlet = folder + "/martlet"
  public static let host = folder + "/martlet-host"
  public static let stack = folder + "/martlet-stack"
  public static let stage = folder + "/martlet-stage"
  /// Runs one loop of the data path by itself, for the benchmarks.
  public static let loops = folder + "/martlet-loops"
  /// Seals packets, for the benchmarks; built with them only.
  public static let sealLoop = folder + "/martlet-seal-loop"

  private static let folder: String = {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    let path = String(
      decoding: buffer[..<max(0, length)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return String(path[..<slash])
  }()
}
