/// A model that looks for work by itself while there is some, and is told of it otherwise.
public protocol PollingModel: EmulatedFunction {
  /// Asks the driver to notify, before the model is stepped no more.
  /// - Returns: whether there is nothing to do: false when the driver has been quicker.
  func prepareToSleep() -> Bool

  /// The model will be stepped again: no notifications are needed.
  func wake()
}
