/// Offsets in BAR0, by the acronyms of the Intel 82574 datasheet, chapter 10.2.
enum Register {
  // 10.2.2: general.
  static let ctrl = 0x00000
  static let status = 0x00008
  static let eec = 0x00010
  static let eerd = 0x00014
  static let ctrlExt = 0x00018
  static let mdic = 0x00020
  static let vet = 0x00038
  static let extcnfCtrl = 0x00f00
  static let pba = 0x01000
  // 10.2.3: PCIe.
  static let swsm = 0x05b50
  static let fwsm = 0x05b54
  // 10.2.4: interrupts.
  static let icr = 0x000c0
  static let itr = 0x000c4
  static let ics = 0x000c8
  static let ims = 0x000d0
  static let imc = 0x000d8
  static let eiac = 0x000dc
  static let iam = 0x000e0
  static let ivar = 0x000e4
  static let eitr = 0x000e8
  // 10.2.5: receive. Those of queue 1 lie 0x100 further on.
  static let rctl = 0x00100
  static let fcrtl = 0x02160
  static let fcrth = 0x02168
  static let psrctl = 0x02170
  static let rdbal = 0x02800
  static let rdbah = 0x02804
  static let rdlen = 0x02808
  static let rdh = 0x02810
  static let rdt = 0x02818
  static let rdtr = 0x02820
  static let rxdctl = 0x02828
  static let radv = 0x0282c
  static let rxcsum = 0x05000
  static let rfctl = 0x05008
  static let mta = 0x05200
  static let ral = 0x05400
  static let rah = 0x05404
  static let vfta = 0x05600
  static let mrqc = 0x05818
  static let reta = 0x05c00
  static let rssrk = 0x05c80
  // 10.2.6: transmit. Those of queue 1 lie 0x100 further on.
  static let tctl = 0x00400
  static let tipg = 0x00410
  static let tdbal = 0x03800
  static let tdbah = 0x03804
  static let tdlen = 0x03808
  static let tdh = 0x03810
  static let tdt = 0x03818
  static let tidv = 0x03820
  static let txdctl = 0x03828
  static let tadv = 0x0382c
  static let tarc = 0x03840

  /// From one queue's registers to the next one's.
  static let queueStride = 0x100
}

/// CTRL, 10.2.2.
enum Ctrl {
  static let fullDuplex: UInt32 = 1 << 0
  static let masterDisable: UInt32 = 1 << 2
  static let setLinkUp: UInt32 = 1 << 6
  static let speed1000: UInt32 = 2 << 8
  static let reset: UInt32 = 1 << 26
  /// TFCE: PAUSE frames are sent.
  static let transmitPause: UInt32 = 1 << 28
  static let vlanMode: UInt32 = 1 << 30
  static let phyReset: UInt32 = 1 << 31
}

/// STATUS, 10.2.2.
enum Status {
  static let fullDuplex: UInt32 = 1 << 0
  static let linkUp: UInt32 = 1 << 1
  static let speed1000: UInt32 = 2 << 6
  static let detected1000: UInt32 = 2 << 8
  static let phyResetAsserted: UInt32 = 1 << 10
  static let masterEnabled: UInt32 = 1 << 19
}

/// CTRL_EXT, 10.2.2.
enum CtrlExt {
  static let eepromReset: UInt32 = 1 << 13
  /// EIAME: a message clears IAM's bits of the mask.
  static let messageMasks: UInt32 = 1 << 24
  /// IAME: an access to ICR clears IAM's bits of the mask.
  static let accessMasks: UInt32 = 1 << 27
}

/// ICR, ICS, IMS, IMC, 10.2.4.
enum Cause {
  static let txdw: UInt32 = 1 << 0
  static let txqe: UInt32 = 1 << 1
  static let lsc: UInt32 = 1 << 2
  static let rxdmt0: UInt32 = 1 << 4
  static let rxo: UInt32 = 1 << 6
  static let rxt0: UInt32 = 1 << 7
  static let mdac: UInt32 = 1 << 9
  static let srpd: UInt32 = 1 << 16
  static let ack: UInt32 = 1 << 17
  static let mng: UInt32 = 1 << 18
  static let rxq0: UInt32 = 1 << 20
  static let txq0: UInt32 = 1 << 22
  static let other: UInt32 = 1 << 24
  static let asserted: UInt32 = 1 << 31

  /// What shows as ``other`` on MSI-X.
  static let others: UInt32 = lsc | rxo | mdac | srpd | ack | mng
  static let defined: UInt32 =
    0x1f << 20 | others | txdw | txqe | rxdmt0 | rxt0 | 1 << 15
  /// Cause and where IVAR says which vector it has.
  static let vectors: [(cause: UInt32, shift: UInt32)] = [
    (rxq0, 0), (rxq0 << 1, 4), (txq0, 8), (txq0 << 1, 12), (other, 16),
  ]
}

/// RCTL, 10.2.5.
enum Rctl {
  static let enable: UInt32 = 1 << 1
  static let storeBad: UInt32 = 1 << 2
  static let unicastPromiscuous: UInt32 = 1 << 3
  static let multicastPromiscuous: UInt32 = 1 << 4
  static let longPackets: UInt32 = 1 << 5
  static let macLoopback: UInt32 = 1 << 6
  static let acceptBroadcast: UInt32 = 1 << 15
  static let vlanFilter: UInt32 = 1 << 18
  static let sizeExtension: UInt32 = 1 << 25
  static let stripCRC: UInt32 = 1 << 26

  /// Bytes of a receive buffer, by BSIZE and BSEX; nil where the combination is reserved.
  static func bufferBytes(_ rctl: UInt32) -> Int? {
    switch (rctl >> 16 & 3, rctl & sizeExtension != 0) {
    case (0, true): nil
    case (let size, true): 32768 >> Int(size)
    case (let size, false): 2048 >> Int(size)
    }
  }
}

/// RFCTL and RXCSUM, 10.2.5.
enum Rfctl {
  static let extendedStatus: UInt32 = 1 << 15
}

enum Rxcsum {
  static let ip: UInt32 = 1 << 8
  static let tcpudp: UInt32 = 1 << 9
  /// PCSD: the RSS hash in place of the packet checksum.
  static let packetChecksumDisable: UInt32 = 1 << 13
}

/// TCTL, 10.2.6.
enum Tctl {
  static let enable: UInt32 = 1 << 1
  static let padShort: UInt32 = 1 << 3
}
