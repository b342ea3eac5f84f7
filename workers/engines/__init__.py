"""What generates tokens: vLLM, with the proof of the weights it holds, and a scripted stand-in."""
