import CLinux
import Glibc
import Stacks

#if canImport(LwIPStack)
  import LwIPStack
#endif

/// A stack instance: an ordinary process on a channel, with one stack.
func run() throws -> Int32 {
  let control = InstanceEnvironment.Inherited.control
  let arguments = try InstanceArguments(Array(CommandLine.arguments.dropFirst()))
  let environment = try InstanceEnvironment(arguments)
  let channel = InstanceChannel(environment.channel, queues: environment.queues)
  switch arguments.stack {
  case "kernel":
    let stack = try KernelStack(
      environment, channel: channel, tap: InstanceEnvironment.Inherited.tap)
    var loop = InstanceLoop(stack: stack, channel: channel, mode: arguments.mode)
    return try loop.run(control: control)
  case "sink":
    var loop = InstanceLoop(
      stack: SinkStack(environment, channel: channel), channel: channel, mode: arguments.mode)
    return try loop.run(control: control)
  #if canImport(LwIPStack)
    case "lwip":
      let stack = try LwIPInstance(environment, channel: channel)
      var loop = InstanceLoop(stack: stack, channel: channel, mode: arguments.mode)
      return try loop.run(control: control)
  #endif
  default:
    throw StackError(
      "this build has no stack named \(arguments.stack); lwip needs `make setup` before the build")
  }
}

do {
  exit(try run())
} catch {
  let text = Array("error \(error)".utf8)
  _ = linux_send_descriptors(
    InstanceEnvironment.Inherited.control, text, text.count, nil, 0, 0)
  exit(1)
}
