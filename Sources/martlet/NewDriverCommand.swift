import ArgumentParser
import Foundation
import NewDriver
import PCI
import Supervisor

/// `martlet new-driver`: the start of a driver.
struct NewDriverCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "new-driver",
    abstract: "Make a driver, a model of its device and tests, which build and pass as they are.",
    discussion: """
      Inside a checkout of Martlet it makes Drivers/NAME and adds one line to Package.swift. With --package it makes a \
      package of your own that depends on a checkout.

      Exit code: 0 when it is made, 1 when it cannot be, 64 for wrong arguments.
      """)

  @Argument(help: "The driver's name: an upper-case letter, then letters and digits.")
  var name: String

  @Option(help: "Vendor id of the functions that it drives, such as 0x10ec.", transform: identifier)
  var vendor: UInt16

  @Option(help: "Device id.", transform: identifier)
  var device: UInt16

  @Option(help: ArgumentHelp("Make a package in this new folder.", valueName: "path"))
  var package: String?

  @Option(
    help: ArgumentHelp(
      "Martlet's checkout; without this, the one that this program was built in, or that you are in.",
      valueName: "path"))
  var martlet: String?

  func run() throws {
    do {
      let template = try DriverTemplate(name: name, vendor: vendor, device: device)
      let checkout = try findCheckout()
      if let package {
        try makePackage(template, at: package, checkout)
      } else {
        try makeFolder(template, in: checkout)
      }
    } catch let failure as DriverTemplate.BadName {
      throw ValidationError("\(failure)")
    } catch let failure as Failure {
      writeLine("martlet new-driver: \(failure.text)", to: 2)
      throw ExitCode(1)
    }
  }

  private struct Failure: Error { var text: String }

  private static let listStart = "let drivers = ["

  private func findCheckout() throws -> String {
    var candidates: [String] = []
    if let martlet {
      candidates = [martlet]
    } else {
      candidates.append(FileManager.default.currentDirectoryPath)
      // .build/release/martlet lies three levels below; resolved, four.
      var folder = URL(filePath: Programs.martlet).deletingLastPathComponent()
      for _ in 0..<4 {
        folder.deleteLastPathComponent()
        candidates.append(folder.path())
      }
    }
    for candidate in candidates {
      let path = URL(filePath: candidate).standardizedFileURL.path()
      let manifest = try? String(contentsOfFile: path + "/Package.swift", encoding: .utf8)
      if manifest?.contains(Self.listStart) == true { return path }
    }
    throw Failure(
      text: martlet == nil
        ? "this is no checkout of Martlet: go into one, or name it with --martlet"
        : "\(martlet!) is no checkout of Martlet")
  }

  private func makeFolder(_ template: DriverTemplate, in checkout: String) throws {
    let folder = "\(checkout)/Drivers/\(name)"
    let manifest = "\(checkout)/Package.swift"
    try refuseExisting(folder)
    let text = try String(contentsOfFile: manifest, encoding: .utf8)
    let line = "  driver(\"\(name)\"),\n"
    guard let start = text.range(of: Self.listStart + "\n") else {
      throw Failure(text: "\(manifest) has no list of drivers")
    }
    try write(template.folder(), to: folder)
    let changed = text.replacingCharacters(in: start.upperBound..<start.upperBound, with: line)
    try save(changed, manifest)
    print("made Drivers/\(name), and added a line for it to Package.swift")
    print("next: swift test --filter \(name)ConformanceTests, then Drivers/\(name)/README.md")
  }

  private func makePackage(_ template: DriverTemplate, at path: String, _ checkout: String) throws {
    try refuseExisting(path)
    let identity = URL(filePath: checkout).lastPathComponent
    try write(template.package(martlet: checkout, identity: identity), to: path)
    print("made the package \(path)")
    print("next: cd \(path) && swift test, then README.md there")
  }

  private func refuseExisting(_ path: String) throws {
    if FileManager.default.fileExists(atPath: path) {
      throw Failure(text: "\(path) is there already: nothing was changed")
    }
  }

  private func write(_ files: [DriverTemplate.File], to folder: String) throws {
    for file in files { try save(file.text, "\(folder)/\(file.path)") }
  }

  private func save(_ text: String, _ path: String) throws {
    do {
      let folder = URL(filePath: path).deletingLastPathComponent()
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      try text.write(toFile: path, atomically: true, encoding: .utf8)
    } catch {
      throw Failure(text: "\(path) cannot be written: \(error.localizedDescription)")
    }
  }
}

/// A vendor or device id, with or without 0x.
private func identifier(_ text: String) throws -> UInt16 {
  let digits = text.hasPrefix("0x") ? String(text.dropFirst(2)) : text
  guard let value = UInt16(digits, radix: 16) else {
    throw ValidationError("\(text) is no id: four hexadecimal digits, such as 0x10ec")
  }
  return value
}
