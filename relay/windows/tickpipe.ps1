# What the scripts of this folder share. They dot-source it; it does nothing by itself.
# Windows PowerShell 5.1 and PowerShell 7.

# The system's own folders, not those that variables name: a user may set those for what runs as administrator.
$SystemFolder = [Environment]::GetFolderPath('System')

# The program, which only administrators may change, and the data of the relay.
$TickpipeProgram = Join-Path ([Environment]::GetFolderPath('ProgramFiles')) 'Tickpipe'
$TickpipeData = Join-Path ([Environment]::GetFolderPath('CommonApplicationData')) 'Tickpipe'

# Accounts by number, as their names are translated.
$SystemSid = 'S-1-5-18'
$ServiceSid = 'S-1-5-19'
$AdministratorsSid = 'S-1-5-32-544'
$TrustedInstallerSid = 'S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464'
$CreatorOwnerSid = 'S-1-3-0'

function Stop-WithMessage {
    # One sentence and its cure instead of a stack trace.
    param([string]$Message, [int]$ExitCode = 2)
    [Console]::Error.WriteLine("Error: $Message")
    exit $ExitCode
}

function Find-Tickpipe {
    # The tickpipe.exe that was named, else the one that install.ps1 put beside these scripts. Never one of the PATH or of a
    # variable: who can write there could run a program of their own with the rights of whoever calls this.
    param([string]$Named)
    if ($Named) {
        if (Test-Path -LiteralPath $Named -PathType Leaf) { return (Get-FullPath $Named) }
        Stop-WithMessage "$Named does not exist. Cure: name tickpipe.exe with -Tickpipe."
    }
    $beside = Join-Path $PSScriptRoot 'env\Scripts\tickpipe.exe'
    if (Test-Path -LiteralPath $beside -PathType Leaf) { return $beside }
    Stop-WithMessage "$beside does not exist. Cure: run install.ps1 of the kit, then the scripts in $TickpipeProgram; or name tickpipe.exe with -Tickpipe."
}

function Get-FullPath {
    # A task does not run in this window's folder.
    param([string]$Path)
    return $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Path)
}

function Read-Secret {
    # The first line of a file, else the environment variable. Never an argument: everybody on the PC sees those.
    param([string]$File, [string]$Variable, [string]$What)
    if (Test-Path -LiteralPath $File -PathType Leaf) {
        $line = Get-Content -LiteralPath $File -TotalCount 1 -ErrorAction SilentlyContinue
        if ($line -and $line.Trim()) { return $line.Trim() }
        Stop-WithMessage "$File is empty or cannot be read by $env:USERNAME. Cure: write $What into its first line."
    }
    $value = [Environment]::GetEnvironmentVariable($Variable)
    if ($value) { return $value }
    Stop-WithMessage "$What is not known. Cure: write it into the first line of $File, or set the variable $Variable."
}

function Request-Key {
    # Asks for the server's key and writes it to a file, unless there is one. Typed at a prompt it is in no history, no
    # variable of the environment and no command line. The file's folder is protected already.
    param([string]$File, [bool]$Anyway, [string]$ReaderSid)
    if ($Anyway -or -not (Test-Path -LiteralPath $File -PathType Leaf)) {
        $typed = Read-Host -Prompt "The server's key" -AsSecureString
        $memory = [Runtime.InteropServices.Marshal]::SecureStringToBSTR($typed)
        try {
            $key = [Runtime.InteropServices.Marshal]::PtrToStringBSTR($memory).Trim()
            if (-not $key) { Stop-WithMessage 'no key was typed. Cure: call the script again; the server has it in TICKPIPE_API_KEYS.' }
            [IO.File]::WriteAllText($File, $key)
        } finally {
            [Runtime.InteropServices.Marshal]::ZeroFreeBSTR($memory)
        }
    }
    Set-Rights $File @('/reset')
    Set-Rights $File @('/inheritance:r', '/grant:r', "*${SystemSid}:F", "*${AdministratorsSid}:F", "*${ReaderSid}:R")
}

function Assert-Administrator {
    $identity = [Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object Security.Principal.WindowsPrincipal($identity)
    if (-not $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
        Stop-WithMessage 'administrator rights are needed. Cure: right-click PowerShell, "Run as administrator", and call the script again.'
    }
}

function Initialize-Folder {
    param([string]$Folder)
    if (-not $Folder) { return }
    try {
        New-Item -ItemType Directory -Path $Folder -Force -ErrorAction Stop | Out-Null
    } catch {
        Stop-WithMessage "$Folder cannot be created: $($_.Exception.Message) Cure: name another folder."
    }
}

function Set-Rights {
    param([string]$Path, [string[]]$Arguments)
    & (Join-Path $SystemFolder 'icacls.exe') $Path @Arguments '/L' '/Q' | Out-Null
    if ($LASTEXITCODE -ne 0) { Stop-WithMessage "the rights of $Path cannot be set. Cure: is it on a disk with NTFS, and does another program hold it?" 1 }
}

function Assert-OwnFolder {
    # The folder's rights are about to be replaced: nothing of anybody else's may be in it, and no link to another place.
    param([string]$Folder)
    if (-not (Test-Path -LiteralPath $Folder)) { return }
    $known = '^(ea\.db.*|key\.txt|(server|database)-url\.txt|.*\.log(\.1)?)$'
    $inside = @(Get-ChildItem -LiteralPath $Folder -Force)
    foreach ($item in @(Get-Item -LiteralPath $Folder -Force) + $inside) {
        if ($item.Attributes -band [IO.FileAttributes]::ReparsePoint) {
            Stop-WithMessage "$($item.FullName) is a link to another place. Cure: delete it, or name another folder with -Data."
        }
    }
    foreach ($item in $inside) {
        if ($item.PSIsContainer -or $item.Name -notmatch $known) {
            Stop-WithMessage "$($item.FullName) is none of Tickpipe's. Cure: move it away, or name a folder for Tickpipe alone with -Data."
        }
    }
}

function Protect-Folder {
    # Administrators and the system may do everything there, the account of the task may change files, nobody else anything.
    # In ProgramData anybody may make the folder first, with rights of their own and files or links in it: it becomes the
    # administrators', and so does what is in it.
    param([string]$Folder, [string]$WriterSid)
    Assert-OwnFolder $Folder
    Initialize-Folder $Folder
    Set-Rights $Folder @('/setowner', "*$AdministratorsSid")
    Set-Rights $Folder @('/reset')
    Set-Rights $Folder @('/inheritance:r', '/grant:r', "*${SystemSid}:(OI)(CI)F", "*${AdministratorsSid}:(OI)(CI)F", "*${WriterSid}:(OI)(CI)M")
    # Again, now that nobody else can add to it.
    Assert-OwnFolder $Folder
    foreach ($item in @(Get-ChildItem -LiteralPath $Folder -Force)) {
        Set-Rights $item.FullName @('/setowner', "*$AdministratorsSid")
        Set-Rights $item.FullName @('/reset')
    }
}

function Assert-OnlyAdministratorsWrite {
    # What a service runs must not be another user's to change.
    param([string]$Path)
    $trusted = @($SystemSid, $AdministratorsSid, $TrustedInstallerSid, $CreatorOwnerSid)
    $named = [Security.AccessControl.FileSystemRights]'WriteData, AppendData, Delete, DeleteSubdirectoriesAndFiles, ChangePermissions, TakeOwnership'
    # GENERIC_ALL and GENERIC_WRITE have no name there.
    $writing = [int]$named -bor 0x50000000
    $rules = (Get-Acl -LiteralPath $Path).GetAccessRules($true, $true, [Security.Principal.SecurityIdentifier])
    foreach ($rule in $rules) {
        if ($rule.AccessControlType -ne 'Allow' -or $trusted -contains $rule.IdentityReference.Value) { continue }
        if ([int]$rule.FileSystemRights -band $writing) {
            Stop-WithMessage "$($rule.IdentityReference.Value) may change $Path, which would run as a service. Cure: install Python for all users into Program Files."
        }
    }
}

function Invoke-Logged {
    # Runs a command of tickpipe.exe that writes its own log, and returns its exit code.
    param([string]$Program, [string[]]$Arguments, [string]$Log)
    & $Program @Arguments '--log-file' $Log | Out-Null
    return $LASTEXITCODE
}

function New-ProgramAction {
    # tickpipe.exe itself, in the program's folder: no shell between, no window, nothing that others can write.
    param([string]$Program, [string[]]$Arguments)
    $quoted = foreach ($argument in $Arguments) {
        if ($argument.Contains('"') -or $argument.EndsWith('\')) { Stop-WithMessage "'$argument' cannot be handed to a task." }
        if ($argument -match '^-{0,2}[a-z][a-z-]*$') { $argument } else { '"' + $argument + '"' }
    }
    return New-ScheduledTaskAction -Execute $Program -Argument ($quoted -join ' ') -WorkingDirectory $TickpipeProgram
}

function New-EndlessTrigger {
    # Every few minutes for ever: an empty duration has no end.
    param([int]$Minutes)
    $trigger = New-ScheduledTaskTrigger -Once -At (Get-Date).AddMinutes(1) -RepetitionInterval (New-TimeSpan -Minutes $Minutes)
    if ($trigger.Repetition.Duration) { $trigger.Repetition.Duration = $null }
    return $trigger
}

function Register-Task {
    # Priority 4 is that of an ordinary program; tasks have 7 otherwise, and the disk makes them wait.
    param([string]$Name, $Action, $Triggers, $Principal, [TimeSpan]$Limit, [string]$Description)
    $settings = New-ScheduledTaskSettingsSet -MultipleInstances IgnoreNew -StartWhenAvailable -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -ExecutionTimeLimit $Limit -Priority 4
    try {
        Register-ScheduledTask -TaskName $Name -Action $Action -Trigger $Triggers -Settings $settings -Principal $Principal -Description $Description -Force -ErrorAction Stop | Out-Null
    } catch {
        Stop-WithMessage "the task '$Name' could not be registered: $($_.Exception.Message) Cure: Get-Help of this script tells of its accounts." 1
    }
}

function Stop-Task {
    # Ends a task and what its program may have left: of the processes on this PC only those of this task's database.
    param($Task)
    Stop-ScheduledTask -InputObject $Task -ErrorAction SilentlyContinue
    foreach ($action in $Task.Actions) {
        if (-not ($action.Arguments -match '-Db "([^"]+)"')) { continue }
        $database = '["\s]' + [regex]::Escape($Matches[1]) + '(["\s]|$)'
        $left = @(Get-CimInstance -ClassName Win32_Process -Filter "Name = 'tickpipe.exe' OR Name = 'python.exe'" |
            Where-Object { $_.CommandLine -match '\brelay"?\s+"?(serve|export)\b' -and $_.CommandLine -match $database })
        foreach ($process in $left) {
            Stop-Process -Id $process.ProcessId -Force -ErrorAction SilentlyContinue
            Wait-Process -Id $process.ProcessId -Timeout 30 -ErrorAction SilentlyContinue
        }
    }
}

function Suspend-Task {
    # Disabled first: else its trigger starts it again while it ends.
    param($Task)
    Disable-ScheduledTask -InputObject $Task | Out-Null
    Stop-Task $Task
}

function Resume-Task {
    param($Task)
    Enable-ScheduledTask -InputObject $Task | Out-Null
    Start-ScheduledTask -InputObject $Task
}

function Remove-Task {
    param([string]$Name)
    $task = Get-ScheduledTask -TaskName $Name -ErrorAction SilentlyContinue
    if (-not $task) {
        Write-Output "There is no task '$Name'."
        return
    }
    Suspend-Task $task
    Unregister-ScheduledTask -TaskName $Name -Confirm:$false
    Write-Output "The task '$Name' is removed. Database, key and logs are left as they are, and so is $TickpipeProgram."
}

# What the commands of an older exporter, local API or edge relay are called.
$OlderCommands = '(?i)run-exporter|run-relay|export(er)?[-_ ]?ticks|exporter\.py|edge[-_ ]?relay|api[-_ ]?lite|forwarder\.py'

function Write-OlderTask {
    # Names scheduled tasks that would send the same ticks beside these scripts; nothing is changed.
    $tasks = Get-ScheduledTask -ErrorAction SilentlyContinue | Where-Object { "$($_.State)" -ne 'Disabled' }
    foreach ($task in $tasks) {
        $commands = @($task.Actions | ForEach-Object { "$($_.Execute) $($_.Arguments)" }) -join '; '
        if ($commands -match $OlderCommands -and -not $commands.Contains($PSScriptRoot)) {
            Write-Output "The task '$($task.TaskPath)$($task.TaskName)' runs an older program: $commands. Ticks sent by both count once; disable it when it has nothing left to send."
        }
    }
}
