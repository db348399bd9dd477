package reconcile

var ReadEvents = readEvents
