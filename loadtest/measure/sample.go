package measure

// Sample is a sample of the timeline of a run. Unknown values are 0.
type Sample struct {
	At          float64 `json:"at"`          // s since the start of the run
	Sent        float64 `json:"sent"`        // per second
	Received    float64 `json:"received"`    // per second
	ServerCPU   float64 `json:"serverCpu"`   // cores
	RedisCPU    float64 `json:"redisCpu"`    // cores
	OwnCPU      float64 `json:"ownCpu"`      // cores
	RSS         float64 `json:"rss"`         // bytes, of the server
	Files       float64 `json:"files"`       // descriptors of the server
	Goroutines  float64 `json:"goroutines"`  // of the server
	Connections float64 `json:"connections"` // open
}
