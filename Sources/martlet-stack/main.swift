import GVisorStack
import Stacks

#if canImport(LwIPStack)
  import LwIPStack
  let lwip = InstalledStack("lwip", LwIPInstance.self)
#else
  let lwip = InstalledStack("lwip", isMissing: "lwip needs `make setup` before the build")
#endif

InstanceProgram.main([
  InstalledStack("kernel", KernelStack.self),
  lwip,
  InstalledStack("gvisor", GVisorInstance.self),
  InstalledStack("sink", SinkStack.self),
])
