import EmulatedPCI

extension VirtioNetDevice: PollingModel {}
