package prompt

// keepTerminal does nothing: pinentry has no terminal here.
func keepTerminal(string) (restore func()) { return func() {} }
