"""Names for icons that neither code points nor emojibase's own names identify.

Things that the emoji table lacks (a folded document, a hard disk) keep the name given here.
"""

from icons.words import pairs

__all__ = ["BROKEN_ICONS", "EXTRA_NAMES"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

BROKEN_ICONS = frozenset(
    ["fxemoji--heartblue", "fxemoji--tramcar", "noto-v1--asterisk", "noto-v1--pound-symbol"]
    + [f"noto-v1--digit-{digit}" for digit in DIGITS]
)
"""Icons that leave their view box, lack their colours, or are white on nothing."""


EVERY_SET = pairs("""
    digit-zero = digit 0; digit-one = digit 1; digit-two = digit 2; digit-three = digit 3
    digit-four = digit 4; digit-five = digit 5; digit-six = digit 6; digit-seven = digit 7
    digit-eight = digit 8; digit-nine = digit 9; pound-symbol = hash sign; asterisk = asterisk
    keycap-pound = keycap: #; keycap-hashtag = keycap: #; exclamation-mark = red exclamation mark
    up-exclamation-button = UP! button; up-text-button = UP! button
    flag-for-cocos-islands = flag: Cocos (Keeling) Islands; flag-for-myanmar = flag: Myanmar (Burma)
    flag-for-turkey = flag: Türkiye; smiling-cat-face-with-heart-eyes = smiling cat with heart-eyes
    knocked-out-face = face with crossed-out eyes; phoenix-bird = phoenix; piata = piñata
    red-triangle = red triangle pointed up; person-elf = elf; person-fairy = fairy; person-genie = genie
    person-mage = mage; person-merpeople = merperson; man-merpeople = merman; woman-merpeople = mermaid
    person-superhero = superhero; person-supervillain = supervillain; person-vampire = vampire
    person-zombie = zombie; person-wrestling = people wrestling; man-with-bunny-ears = men with bunny ears
    woman-with-bunny-ears = women with bunny ears; person-with-bunny-ears = people with bunny ears
    person-blonde-hair = person: blond hair; man-blonde-hair = man: blond hair
    woman-blonde-hair = woman: blond hair; man-dark-skin-tone-blond-hair = blond-haired-man-dark-skin-tone
    man-light-skin-tone-blond-hair = blond-haired-man-light-skin-tone
    man-medium-dark-skin-tone-blond-hair = blond-haired-man-medium-dark-skin-tone
    man-medium-light-skin-tone-blond-hair = blond-haired-man-medium-light-skin-tone
    man-medium-skin-tone-blond-hair = blond-haired-man-medium-skin-tone
    shibuya-109-department-store = Shibuya 109 department store
""")

FXEMOJI = pairs("""
    cat = cat face; catside = cat; dog = dog face; dogside = dog; bunny = rabbit face; bunnyside = rabbit
    dragonhead = dragon face; dragonside = dragon; leopardside = leopard; mouse = mouse face
    mouseside = mouse; pig = pig face; pigside = pig; pigsnout = pig nose; tiger = tiger face
    tigerside = tiger; hampster = hamster; spurtingwhale = spouting whale
    frontfacingchick = front-facing baby chick; monkeyhear = hear-no-evil monkey
    monkeysee = see-no-evil monkey; monkeyspeak = speak-no-evil monkey; pout = person pouting
    pouting = enraged face; wave = water wave; bow = ribbon; couple = couple with heart; kiss = kissing face
    up = backhand index pointing up; down = backhand index pointing down
    sunglasses = smiling face with sunglasses; star = white star; whitemediumstar = white star
    beachumbrella = beach with umbrella; construction = building construction
    personalcomputer = desktop computer; foxcrying = crying fox; foxgrin = grinning fox
    foxheart = smiling fox with heart-eyes; foxkissing = kissing fox; foxpouting = pouting fox
    foxsmiling = smiling fox; foxtearofjoy = fox with tears of joy; foxweary = weary fox
    foxwry = fox with wry smile; 2hearts = two hearts; heartarrow = heart with arrow
    heartgreen = green heart; heartpurple = purple heart; heartyellow = yellow heart
    heartlefttip = tilted red heart; anguish = anguished face; crying = crying face
    loudlycrying = loudly crying face; screamfear = face screaming in fear
    devilhorns = smiling face with horns; dissapointedrelief = sad but relieved face
    perservere = persevering face; frownmouth = frowning face with open mouth
    smallfrown = slightly frowning face; smallsmile = slightly smiling face
    smileeyes = smiling face with smiling eyes; smiletongue = face savoring food
    tongueoutwink = winking face with tongue; tongueoutwink2 = squinting face with tongue
    winking = winking face; kissclosedeyes = kissing face with closed eyes
    kisseyes = kissing face with smiling eyes; grineyes = grinning face with smiling eyes
    grinsquint = grinning squinting face; grinsweat = grinning face with sweat
    grintears = face with tears of joy; grinwide = grinning face; grinwideeyes = grinning face with big eyes
    blackmissingsmiley = black smiley; aok = OK hand; turnedokhand = turned OK hand
    fistedhand = oncoming fist; flexbicep = flexed biceps; hands = open hands; high5 = raising hands
    index = index pointing up; left = backhand index pointing left; right = backhand index pointing right
    leftwritinghand = writing hand; waving = waving hand; raisedhandpartfingers = vulcan salute
    raisedhandsfingerssplayed = hand with fingers splayed; reversehandmiddlefinger = middle finger
    reverseraisedhandsfingerssplayed = back of a hand with fingers splayed
    reversethumbsdown = turned thumbs down; reversethumbsup = turned thumbs up
    reversevictoryhand = turned victory hand; blackdownpointingbackhand = black hand pointing down
    blackleftpointingbackhand = black hand pointing left
    blackrightpointingbackhand = black hand pointing right; blackuppointingbackhand = black hand pointing up
    sidewaysblackdownpointingindex = black hand pointing down from the side
    sidewaysblackleftpointingindex = black hand pointing left from the side
    sidewaysblackrightpointingindex = black hand pointing right from the side
    sidewaysblackuppointingindex = black hand pointing up from the side
    sidewaysdownpointingindex = white hand pointing down from the side
    sidewaysleftpointingindex = white hand pointing left from the side
    sidewaysrightpointingindex = white hand pointing right from the side
    sidewaysuppointingindex = white hand pointing up from the side
    whitedownpointinglefthand = white hand pointing down; blonde = person: blond hair
    bowing = person bowing; bride = person with veil; bunny-ears = people with bunny ears
    construct = construction worker; frown = person frowning; girlgirl = women holding hands
    guyguy = men holding hands; girlguy = woman and man holding hands; gma = old woman; gpa = old man
    guapimao = person with skullcap; handup = person raising hand; headmassage = person getting massage
    nogesture = person gesturing NO; okgesture = person gesturing OK; sleuthspy = detective
    turban = person wearing turban; waitress = person tipping hand; contact = bust in silhouette
    contact2 = busts in silhouette; japaneseangrymask = goblin; americasglobe = globe showing Americas
    asiaaustraliaglobe = globe showing Asia-Australia; europeafricaglobe = globe showing Europe-Africa
    meridianglobe = globe with meridians; silhouetteohjapan = map of Japan; chineseflag = flag: China
    franceflag = flag: France; greatbritainflag = flag: United Kingdom; italianflag = flag: Italy
    japanflag = flag: Japan; koreaflag = flag: South Korea; russianflag = flag: Russia
    spanishflag = flag: Spain; blackwaving = black flag; blackpennant = black pennant
    whitepennant = white pennant; clock12oclock = twelve o'clock; clock12thirty = twelve-thirty
    clock1oclock = one o'clock; clock1thirty = one-thirty; clock2oclock = two o'clock
    clock2thirty = two-thirty; clock3oclock = three o'clock; clock3thirty = three-thirty
    clock4oclock = four o'clock; clock4thirty = four-thirty; clock5oclock = five o'clock
    clock5thirty = five-thirty; clock6oclock = six o'clock; clock6thirty = six-thirty
    clock7oclock = seven o'clock; clock7thirty = seven-thirty; manltepiececlock = mantelpiece clock
    cjkunifiedideograph-a = Japanese reserved button
    cjkunifiedideograph-b = Japanese open for business button
    cjkunifiedideograph-c = Japanese prohibited button; cjkunifiedideograph-d = Japanese vacancy button
    cjkunifiedideograph-e = Japanese passing grade button
    cjkunifiedideograph-f = Japanese no vacancy button
    cjkunifiedideograph-g = Japanese not free of charge button
    cjkunifiedideograph-h = Japanese monthly amount button
    cjkunifiedideograph-i = Japanese free of charge button
    cjkunifiedideograph-j = Japanese application button; cjkunifiedideograph-k = Japanese discount button
    negativesquaredlatincaptiala = A button; negativesquaredlatincaptialb = B button
    negativesquaredlatincaptialo = O button; squaredup = UP! button
    anticlockwiseupwardsanddownwardsarrows = counterclockwise arrows button
    backwithleftwardsarrow = BACK arrow; arrowrightwardsdownwards = right arrow curving down
    arrowrightwardsupwards = right arrow curving up; endwithleftwardsarrow = END arrow
    onarrowleftright = ON! arrow; soonwithrightarrow = SOON arrow; topwithupwardsarrow = TOP arrow
    blackdownpointingdoublearrow = fast down button; blackuppointingdoublearrow = fast up button
    blackleftpointingdoublearrow = fast reverse button; blackrightpointingdoublearrow = fast-forward button
    blackleftpointingarrow = reverse button; blackrightpointingarrow = play button
    downpointingsmallredtrisngle = downwards button; uppointingsmallredtrisngle = upwards button
    clockwisedownupcircledarrows = clockwise vertical arrows
    clockwiseleftrightarrows = clockwise horizontal arrows
    clockwiserightwardsleftwardscirclearrows = repeat button
    clockwiserightwardsleftwardscirclearrowsone = repeat single button
    blackquestionmark = black question mark; doubleexclaimationmark = double exclamation mark
    exclaimationquestionmark = exclamation question mark
    heavyexclaimationmarksymbol = black exclamation mark; whiteexclaimationmark = white exclamation mark
    heavymultiplicationsymbol = multiply; cancellationx = black X mark
    diamondshapewithdotinside = diamond with a dot; eightspokedasterix = eight-spoked asterisk
    sixpointedstarwithdot = dotted six-pointed star; saggitarius = Sagittarius
    nooneunder18symbol = no one under eighteen; nopiracy = no piracy sign
    potablewatersystem = potable water; increasefontsize = letters growing in size
    decreasefontsize = letters shrinking in size; whitestar = white star; whitesun = sun; sunrays = sun
    celticcross = Celtic cross; heavylatincross = black Latin cross; whitelatincross = white Latin cross
    blackrosette = black flower; blackskullcrossbones = skull and crossbones
    markschaptersymbol = chapter symbol; notchedrightsemi3dot = notched semicircle with three dots
    lowerrightwhitecircle = white circle with shadow
    upperrightwhitecircle = tilted white circle with shadow; threeraysabove = three rays above
    threeraysbelow = three rays below; threeraysleft = three rays left; threeraysright = three rays right
    bolt = high voltage; lightningmood = lightning bolt; lightningmoodbubble = lightning bolt in a bubble
    moodbubble = spiky bubble; leftangerbubble = spiky speech bubble
    leftthoughtbubble = left thought bubble; rightthoughtbubble = right thought bubble
    rightspeechbubble = right speech bubble; speechbubble = speech balloon; thoughtbaloon = thought balloon
    twospeechbubbles = two speech bubbles; threespeechbubbles = three speech bubbles; acorn = acorn
    bouquetofflowers = bouquet; chilipepper = hot pepper; evergreen = evergreen tree
    fallingleaf = fallen leaf; leaffluttering = leaf fluttering in wind
    fishcakeswirl = fish cake with swirl; forkknife = fork and knife with plate; confetti = confetti ball
    present = wrapped gift; reminder = reminder ribbon; blackdroplet = droplet; sweatsplash = sweat droplets
    snowmountains = snow-capped mountain; stormcloud = cloud with lightning
    sunraincloud = sun behind rain cloud; waningbibbousmoon = waning gibbous moon
    highspeedtrainbulletnose = bullet train; toykotower = Tokyo tower; tennisball = tennis
    envelopedownarrowabove = envelope with arrow; flyingenvelope = incoming envelope
    backofenvelope = envelope; envelopewithlightning = envelope with lightning
    stampedenvelope = stamped envelope; penoverstampedenvelope = stamped envelope with pen
    outbox = outbox tray; closedmailboxlowered = closed mailbox with lowered flag
    closedmailboxraised = closed mailbox with raised flag
    openmailboxlowered = open mailbox with lowered flag; openmailboxraised = open mailbox with raised flag
    ballotboldscriptx = cross mark; ballottscriptx = handwritten cross mark
    ballotboxboldcheck = ballot box with check; ballotboxwithboldscriptx = ballot box with bold cross
    ballottboxwithscriptx = ballot box with cross; ballottboxwithballott = ballot box with ballot
    banknotedollar = dollar banknote; banknoteeuro = euro banknote; banknotepound = pound banknote
    banknoteyen = yen banknote; chartdownwardstrend = chart decreasing; chartupwardstrend = chart increasing
    chartupwardstrendyen = chart increasing with yen; stockchart = stock chart
    bellcancellation = bell with slash; ringingbell = ringing bell; bullhorn = loudspeaker
    bullhornwithsoundwaves = loudspeaker with sound waves; speaker3soundwaves = speaker high volume
    speakeronesoundwave = speaker medium volume; speakercancellation = muted speaker
    rightspeaker = mirrored speaker; rightspeaker3soundwaves = mirrored speaker with three sound waves
    speakerwith1soundwave = mirrored speaker with one sound wave; studiomic = studio microphone
    musicascend = rising musical notes; musicdescend = falling musical notes; controlknob = control knobs
    portablestereo = boombox; tapecartridge = tape cartridge; videocasette = videocassette
    handheldvideocamera = video camera; opticaldiscicon = optical disk; harddisk = hard disk
    printericon = printer; faxicon = fax machine; blackhardshellfloppy = floppy disk
    floppydisk2 = floppy disk; softshellfloppy = black floppy disk; whitehardshellfloppy = white floppy disk
    oldpersonalcomputer = old laptop; onebuttonmouse = computer mouse; twobuttonmouse = computer mouse
    keyboardandmouse = keyboard and mouse; wiredkeyboard = keyboard; screen = screen
    threenetworkedcomputers = three networked computers; maximize = maximized window
    minimize = minimized window; overlap = overlapping windows; cellphone = mobile phone
    clamshellmobile = flip phone; phonerightarrowleft = mobile phone with arrow
    phonewithpage = telephone receiver with page; lefthandphone = left telephone receiver
    righthandphone = right telephone receiver; telephonereceiver2 = telephone receiver
    blacktouchtonetelephone = push-button telephone; whitetouchtonephone = white telephone
    telephoneonmodem = telephone on a modem; leftmagnifyingglass = magnifying glass tilted left
    rightmagnifyingglass = magnifying glass tilted right; lockandkey = locked with key
    blackpushpin = black pushpin; lowerleftpen = pen; lowerleftpencil = pencil; blackfolder = black folder
    folder = file folder; openfolder = open file folder; bookmarktab = bookmark tabs
    notebookdecorativecover = notebook with decorative cover; document = document
    documentwithtext = page facing up; documenttextpicture = document with text and picture
    documentwithpicture = document with picture; emptydocument = empty document; emptynote = empty note
    emptynotepad = empty notepad; emptynotepage = empty note page; emptypage = empty page
    emptypages = empty pages; note = note; notepad = notepad; notepage = note page; page = page
    pages = page with curl; pagewithcircledtext = newspaper with circled text
    framewithtiles = framed picture with tiles; framewithx = framed picture with a cross
    heels = high-heeled shoe; makeupbag = clutch bag; pinkwallet = purse; mansshirt = t-shirt
    mensrunner = running shoe; mensshoe = man's shoe; sandals = woman's sandal
    womansshirt = woman's clothes
""")

EXTRA_NAMES: dict[str, dict[str, str]] = {"*": EVERY_SET, "fxemoji": FXEMOJI}
