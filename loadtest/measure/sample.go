package measure

// Sample is one moment of a run. What is not known is 0.
type Sample struct {
	At          float64 `json:"at"`          // s since the run's start
	Sent        float64 `json:"sent"`        // a second
	Received    float64 `json:"received"`    // a second
	ServerCPU   float64 `json:"serverCpu"`   // cores
	RedisCPU    float64 `json:"redisCpu"`    // cores
	OwnCPU      float64 `json:"ownCpu"`      // cores
	RSS         float64 `json:"rss"`         // bytes, of the server
	Files       float64 `json:"files"`       // descriptors of the server
	Goroutines  float64 `json:"goroutines"`  // of the server
	Connections float64 `json:"connections"` // open
}
