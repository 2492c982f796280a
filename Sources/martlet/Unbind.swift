import ArgumentParser
import PCIDiscovery

/// `martlet unbind`: gives a function back.
struct Unbind: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Give a PCI function back to the driver that it was taken from. Needs root.",
    discussion: CommandFailure.exitCodes)

  @Argument(help: "0000:04:00.1 or 04:00.1.")
  var address: String

  @Flag(help: "Also while a process holds it; the kernel then waits until that process lets go.")
  var force = false

  func run() throws {
    try reporting {
      let function = try find(address)
      do {
        let outcome = try FunctionBinding().unbind(function, force: force)
        print("\(function.address): vfio-pci -> \(outcome.formerDriver ?? "no driver")")
      } catch {
        throw CommandFailure.failed(error)
      }
    }
  }
}
