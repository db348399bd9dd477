package broker

// PromptLifeForTest is how long the longest wait in the background lasts.
const PromptLifeForTest = promptLife
