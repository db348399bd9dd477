package ocsf

// What follows are the objects of the schema, as far as entries fill them.

type event struct {
	Metadata     metadata `json:"metadata"`
	Time         int64    `json:"time"` // ms since 1970
	Category     int      `json:"category_uid"`
	Class        int      `json:"class_uid"`
	Activity     int      `json:"activity_id"`
	ActivityName string   `json:"activity_name,omitempty"`
	Type         int      `json:"type_uid"`
	Severity     int      `json:"severity_id"`
	Status       int      `json:"status_id"`
	StatusCode   string   `json:"status_code,omitempty"`
	StatusDetail string   `json:"status_detail,omitempty"`
	Message      string   `json:"message"`
	Action       *int     `json:"action_id,omitempty"`
	Disposition  *int     `json:"disposition_id,omitempty"`
	Policy       *named   `json:"policy,omitempty"`
	User         *user    `json:"user,omitempty"`
	Privileges   []string `json:"privileges,omitempty"`
	Session      *session `json:"session,omitempty"`
	MFA          bool     `json:"is_mfa,omitempty"`
	Service      *named   `json:"service,omitempty"`
	Entity       *entity  `json:"entity,omitempty"`
	App          *named   `json:"app,omitempty"`
	API          *api     `json:"api,omitempty"`
	Source       *device  `json:"src_endpoint,omitempty"`
	Actor        *actor   `json:"actor,omitempty"`
	Cloud        *cloud   `json:"cloud,omitempty"`
	Device       *device  `json:"device,omitempty"`
	Unmapped     unmapped `json:"unmapped"`
	Raw          string   `json:"raw_data"`
}

type metadata struct {
	Version      string   `json:"version"`
	Profiles     []string `json:"profiles"`
	Product      product  `json:"product"`
	UID          string   `json:"uid"`
	Sequence     int64    `json:"sequence"`
	Correlation  string   `json:"correlation_uid,omitempty"`
	Code         string   `json:"event_code"`
	LogName      string   `json:"log_name"`
	OriginalTime string   `json:"original_time"`
	Truncated    bool     `json:"is_truncated,omitempty"`
}

type product struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Version string `json:"version"`
}

// A named is any object of which the name or the uid alone is known.
type named struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

type user struct {
	Name        string  `json:"name,omitempty"`
	UID         string  `json:"uid,omitempty"`
	Type        int     `json:"type_id"`
	Credentials []named `json:"programmatic_credentials,omitempty"`
	Groups      []named `json:"groups,omitempty"`
}

type session struct {
	UID        string `json:"uid,omitempty"`
	AltUID     string `json:"uid_alt,omitempty"`
	Credential string `json:"credential_uid,omitempty"`
	Expires    int64  `json:"expiration_time,omitempty"`
	Ended      string `json:"expiration_reason,omitempty"`
	MFA        bool   `json:"is_mfa,omitempty"`
	Terminal   string `json:"terminal,omitempty"`
}

type entity struct {
	Name     string `json:"name,omitempty"`
	UID      string `json:"uid,omitempty"`
	Type     int    `json:"type_id"`
	TypeName string `json:"type"`
	User     *user  `json:"user,omitempty"`
}

type api struct {
	Operation string `json:"operation"`
	Service   *named `json:"service,omitempty"`
	Request   *named `json:"request,omitempty"`
}

type actor struct {
	Process *process `json:"process,omitempty"`
	User    *user    `json:"user,omitempty"`
	App     string   `json:"app_name,omitempty"`
}

type process struct {
	PID      int       `json:"pid"`
	Path     string    `json:"path,omitempty"`
	Command  string    `json:"cmd_line,omitempty"`
	Cwd      string    `json:"working_directory,omitempty"`
	File     *file     `json:"file,omitempty"`
	User     *user     `json:"user,omitempty"`
	Ancestry []process `json:"ancestry,omitempty"`
}

type file struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Type int    `json:"type_id"`
}

type cloud struct {
	Provider string   `json:"provider"`
	Account  *account `json:"account"`
}

type account struct {
	UID  string `json:"uid"`
	Type int    `json:"type_id"`
}

type device struct {
	Hostname string `json:"hostname"`
	Type     int    `json:"type_id"` // 0: unknown
}

// unmapped is what the schema has no place for.
type unmapped struct {
	Outcome         string   `json:"outcome"`
	Profile         string   `json:"profile,omitempty"`
	Lease           string   `json:"lease,omitempty"`
	Reason          string   `json:"reason,omitempty"`
	RoleSessionName string   `json:"role_session_name,omitempty"`
	SourceIdentity  string   `json:"source_identity,omitempty"`
	Via             string   `json:"via,omitempty"`
	Resolved        *bool    `json:"ancestry_resolved,omitempty"`
	Cut             []string `json:"cut,omitempty"`
}
