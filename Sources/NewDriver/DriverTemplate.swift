/// What `martlet new-driver` writes: a driver, a model of its device, and tests, which build and pass as they are.
public struct DriverTemplate: Sendable {
  /// The type's name, such as "Realtek8168".
  public let name: String
  public let vendor: UInt16
  public let device: UInt16

  /// What is wrong with a name.
  public struct BadName: Error, Sendable, CustomStringConvertible {
    public var description: String
  }

  /// - Parameter name: an upper-case letter, then letters and digits.
  public init(name: String, vendor: UInt16, device: UInt16) throws(BadName) {
    let isIdentifier = name.utf8.allSatisfy {
      (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0)
    }
    guard let first = name.utf8.first, (0x41...0x5a).contains(first), isIdentifier else {
      throw BadName(
        description:
          "\(name) cannot be a driver's name: it takes an upper-case letter, then letters and digits, such as Realtek8168"
      )
    }
    self.name = name
    self.vendor = vendor
    self.device = device
  }

  public struct File: Sendable {
    /// Relative to the folder that is made.
    public var path: String
    public var text: String
  }

  /// A folder for Martlet's own Drivers.
  public func folder() -> [File] {
    let test = "swift test --filter \(name)ConformanceTests"
    let run = "martlet run --device 0000:00:05.0"
    return driver("") + model("Model/") + tests("Tests/") + [
      file("README.md", PackageResources.README_template, test: test, run: run)
    ]
  }

  /// A package of the author's own.
  /// - Parameters:
  ///   - martlet: path of Martlet's checkout.
  ///   - identity: the last part of that path, by which packages know each other.
  public func package(martlet: String, identity: String) -> [File] {
    let lowered = name.lowercased()
    let run =
      "martlet run --device 0000:00:05.0 --host .build/release/\(lowered)-host"
    return driver("Sources/\(name)/") + model("Sources/\(name)Model/")
      + tests("Tests/\(name)Tests/") + [
        file("Sources/\(lowered)-host/main.swift", PackageResources.Host_template),
        file(
          "Package.swift", PackageResources.Package_template, martlet: martlet, identity: identity),
        file("README.md", PackageResources.README_template, test: "swift test", run: run),
        File(path: ".gitignore", text: ".build/\n"),
      ]
  }

  private func driver(_ folder: String) -> [File] {
    [
      file("\(folder)Registers.swift", PackageResources.Registers_template),
      file("\(folder)\(name).swift", PackageResources.Driver_template),
      file("\(folder)\(name)QueuePair.swift", PackageResources.QueuePair_template),
    ]
  }

  private func model(_ folder: String) -> [File] {
    [file("\(folder)\(name)Device.swift", PackageResources.Device_template)]
  }

  private func tests(_ folder: String) -> [File] {
    [
      file(
        "\(folder)\(name)ConformanceTests.swift", PackageResources.ConformanceTests_template)
    ]
  }

  private func file(
    _ path: String, _ template: [UInt8], test: String = "", run: String = "",
    martlet: String = "", identity: String = ""
  ) -> File {
    var text = String(decoding: template, as: UTF8.self)
    for (mark, value) in [
      ("__NAME__", name), ("__name__", name.lowercased()), ("__VENDOR__", hexadecimal(vendor)),
      ("__DEVICE__", hexadecimal(device)), ("__TEST__", test), ("__RUN__", run),
      ("__MARTLET__", martlet), ("__PACKAGE__", identity),
    ] {
      text = text.split(separator: mark, omittingEmptySubsequences: false).joined(separator: value)
    }
    return File(path: path, text: text)
  }

  private func hexadecimal(_ id: UInt16) -> String {
    let digits = String(id, radix: 16)
    return "0x" + String(repeating: "0", count: 4 - digits.count) + digits
  }
}
